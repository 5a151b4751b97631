"""Similar items: cosine of ALS factors blended with co-occurrence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from batch.models.neighbour_lists import NeighbourLists, tie_ranks, top_of_dense

_BLOCK_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class SimilarParams:
    """cosine_share: share of the factors' cosine, in [0, 1]; the rest is co-occurrence."""

    cosine_share: float = 0.5


def similar_items(
    factors: NDArray[np.float32],
    cooccurrence: sparse.csr_array,
    start: int,
    stop: int,
    *,
    k: int,
    cosine_share: float = 0.5,
    seed: int = 0,
) -> NeighbourLists:
    """The k items most similar to each item from `start` to `stop` (exclusive), itself left out.

    factors: float32 [n_items, d]; cooccurrence: [n_items, n_items], row by source, as `fit_cooccurrence` makes it.
    Score in [0, 1] = cosine_share * cosine + (1 - cosine_share) * co-occurrence, negative cosines read as 0 and each
    part divided by its row's greatest, so that neither scale matters. Any slicing gives the same lists. Ties stand in
    a seeded order. A row of an item without interactions is empty (-1).
    """
    unit = unit_rows(factors)
    ties = tie_ranks(len(factors), seed)
    found = []
    # BLAS adds in another order for other numbers of rows, so blocks lie where they lie whatever slice is asked for.
    for block in range(start - start % _BLOCK_ROWS, stop, _BLOCK_ROWS):
        scores = _blend(unit, cooccurrence, block, min(block + _BLOCK_ROWS, len(unit)), cosine_share)
        found.append(top_of_dense(scores[max(start - block, 0) : stop - block], k, ties))
    if not found:
        return NeighbourLists(np.empty((0, k), dtype=np.int32), np.empty((0, k), dtype=np.float32))
    return NeighbourLists(
        np.concatenate([part.indexes for part in found]), np.concatenate([part.scores for part in found])
    )


def unit_rows(factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows scaled to length 1, float32 [n, d]; rows of zeros stay."""
    lengths = np.linalg.norm(factors, axis=1, keepdims=True)
    return np.asarray(factors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _blend(
    unit: NDArray[np.float32], cooccurrence: sparse.csr_array, low: int, high: int, cosine_share: float
) -> NDArray[np.float32]:
    cosine: NDArray[np.float32] = unit[low:high] @ unit.T
    met: NDArray[np.float32] = cooccurrence[low:high].toarray().astype(np.float32)
    blended = np.zeros(cosine.shape, dtype=np.float32)
    for part, share in ((cosine, cosine_share), (met, 1 - cosine_share)):
        part[np.arange(high - low), np.arange(low, high)] = 0
        greatest = part.max(axis=1, initial=0, keepdims=True)
        blended += np.float32(share) * np.maximum(part, 0) / np.where(greatest > 0, greatest, 1)
    return blended
