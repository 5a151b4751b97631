"""Scoring by neighbour lists: the union of the seeds' lists, each entry weighted by its seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.candidates.query import ListKind, Query, Ranked


def score_neighbours(query: Query, kind: ListKind, weights: NDArray[np.float64], limit: int) -> Ranked:
    """Sum of weight * score over the lists of the seeds (float64[m] weights, 0 leaves a seed out).

    Seeds themselves are left out; `via` is the seed that adds most. Lists that could not be read add nothing.
    """
    block = query.neighbours.get(kind)
    used = np.flatnonzero(weights > 0)
    if block is None or not len(used):
        return Ranked.none()
    indexes = block.indexes[used].ravel()
    parts = (block.scores[used] * weights[used, None]).ravel()
    seeds = np.repeat(query.seeds[used], block.indexes.shape[1])
    kept = (indexes >= 0) & (parts > 0)
    indexes, parts, seeds = indexes[kept], parts[kept], seeds[kept]
    others = query.eligible.copy()
    others[query.seeds] = False
    kept = others[indexes]
    indexes, parts, seeds = indexes[kept], parts[kept], seeds[kept]
    if not len(indexes):
        return Ranked.none()
    order = np.lexsort((-parts, indexes))
    indexes, parts, seeds = indexes[order], parts[order], seeds[order]
    starts = np.flatnonzero(np.r_[True, indexes[1:] != indexes[:-1]])
    return Ranked.top(indexes[starts], np.add.reduceat(parts, starts), limit, seeds[starts])
