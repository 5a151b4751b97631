"""Lists of the strongest neighbours of each item, cut from dense or sparse scores with a fair order of ties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_PAIRS_AT_ONCE: Final = 8_000_000


@dataclass(frozen=True, slots=True)
class NeighbourLists:
    """For each row the neighbours' item indexes, int32 [rows, k] padded with -1, and their scores, float32 [rows, k].

    Scores are positive and descend; padding scores 0.
    """

    indexes: NDArray[np.int32]
    scores: NDArray[np.float32]


def tie_ranks(item_count: int, seed: int) -> NDArray[np.int32]:
    """A seeded permutation [item_count]: among equal scores the item of lower rank comes first.

    Raw order must not decide: in many data sets ids grow with first appearance, so it leaks.
    """
    return np.random.default_rng(seed).permutation(item_count).astype(np.int32)


def list_heads(matrix: sparse.csr_array, start: int, stop: int, *, k: int, seed: int = 0) -> NeighbourLists:
    """The k strongest targets of the source items `start` to `stop` (exclusive) of a square matrix, row by source."""
    return top_of_sparse(matrix[start:stop], k, tie_ranks(matrix.shape[1], seed))


def top_of_sparse(scores: sparse.csr_array, k: int, ties: NDArray[np.int32]) -> NeighbourLists:
    """The k highest positive scores of each row of a sparse matrix [rows, items], equal ones by `ties` [items]."""
    rows = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    return top_of_triples(rows, scores.indices, scores.data, row_count=scores.shape[0], k=k, ties=ties)


def top_of_dense(scores: NDArray[np.float32], k: int, ties: NDArray[np.int32]) -> NeighbourLists:
    """As `top_of_sparse`, of a dense matrix [rows, items]."""
    wanted = scores > 0
    if k < scores.shape[1]:
        place = scores.shape[1] - k
        wanted &= scores >= np.partition(scores, place, axis=1)[:, place : place + 1]
    rows, columns = np.nonzero(wanted)
    return top_of_triples(rows, columns, scores[rows, columns], row_count=scores.shape[0], k=k, ties=ties)


def top_of_triples(
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    values: NDArray[np.floating],
    *,
    row_count: int,
    k: int,
    ties: NDArray[np.int32],
) -> NeighbourLists:
    """As `top_of_sparse`, of entries (row, column, value) in any order, each (row, column) at most once."""
    positive = values > 0
    rows, columns, values = rows[positive], columns[positive], values[positive].astype(np.float32)
    order = np.lexsort((ties[columns], -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.searchsorted(rows, np.arange(row_count))
    place = np.arange(len(rows)) - starts[rows]
    kept = place < k
    indexes = np.full((row_count, k), -1, dtype=np.int32)
    scores = np.zeros((row_count, k), dtype=np.float32)
    indexes[rows[kept], place[kept]] = columns[kept]
    scores[rows[kept], place[kept]] = values[kept]
    return NeighbourLists(indexes, scores)


def prune_rows(scores: sparse.csr_array, k: int, ties: NDArray[np.int32]) -> sparse.csr_array:
    """The matrix [rows, items] with only the k highest entries of each row, equal ones by `ties` [items]."""
    kept = np.ones(scores.nnz, dtype=np.bool_)
    for row in np.flatnonzero(np.diff(scores.indptr) > k).tolist():
        within = slice(scores.indptr[row], scores.indptr[row + 1])
        values = scores.data[within]
        least = np.partition(values, len(values) - k)[len(values) - k]
        equal = np.flatnonzero(values == least)
        chosen = values > least
        wanted = k - int(chosen.sum())
        chosen[equal[np.argsort(ties[scores.indices[within][equal]])[:wanted]]] = True
        kept[within] = chosen
    indptr = np.concatenate([[0], np.cumsum(kept)])[scores.indptr]
    return sparse.csr_array((scores.data[kept], scores.indices[kept], indptr), shape=scores.shape)


def multiply_in_blocks(
    left: sparse.csr_array, right: sparse.csr_array, finish: Callable[[sparse.csr_array, int], sparse.csr_array]
) -> sparse.csr_array:
    """float32 left @ right, a bounded number of pairs at a time, each block of rows (and its first row) finished."""
    pairs = np.concatenate([[0], np.cumsum(np.diff(right.indptr)[left.indices], dtype=np.int64)])[left.indptr]
    blocks = [sparse.csr_array((0, right.shape[1]), dtype=np.float32)]
    start = 0
    while start < left.shape[0]:
        stop = int(np.searchsorted(pairs, pairs[start] + _PAIRS_AT_ONCE, side="right")) - 1
        stop = min(max(stop, start + 1), left.shape[0])
        block = sparse.csr_array(left[start:stop] @ right)
        blocks.append(finish(block, start).astype(np.float32))
        start = stop
    stacked = sparse.csr_array(sparse.vstack(blocks, format="csr"))
    stacked.sort_indices()
    return stacked


def without_own(block: sparse.csr_array, start: int = 0) -> sparse.csr_array:
    """The block itself, rows `start` on of a square matrix, once what names its own row is taken out of it."""
    sources = np.repeat(np.arange(start, start + block.shape[0]), np.diff(block.indptr))
    block.data[sources == block.indices] = 0
    block.eliminate_zeros()
    return block
