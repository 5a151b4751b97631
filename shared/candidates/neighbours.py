"""Scoring by neighbour lists: the union of the seeds' lists, each entry weighted by its seed."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.candidates.opinion import Listed
from shared.candidates.query import ListKind, Query
from shared.candidates.ranked import Indexes

_DENSE_FROM: Final = 8
"""From one entry in so many items on, sums over all items are cheaper than finding the distinct ones."""


def weigh_neighbours(query: Query, kind: ListKind, weights: NDArray[np.float64]) -> Listed:
    """Sum of weight * score over the lists of the seeds (float64[m] weights, 0 leaves a seed out).

    Seeds are scored but not put forward: they are the repeat source's. Behind an item stands the seed that adds most,
    the first of equals. Lists that could not be read add nothing.
    """
    block = query.neighbours.get(kind)
    used = np.flatnonzero(weights > 0)
    if block is None or not len(used):
        return Listed.nothing()
    parts = block.scores[used] * weights[used, None]
    kept = (block.indexes[used] >= 0) & (parts > 0)
    indexes, parts = block.indexes[used][kept], parts[kept]
    if not len(indexes):
        return Listed.nothing()
    seeds = np.repeat(query.seeds[used], kept.sum(axis=1))
    distinct, scores = _summed(indexes, parts, len(query.eligible))
    others = query.eligible.copy()
    others[query.seeds] = False

    def seeds_of(items: Indexes) -> Indexes:
        return _strongest(items, indexes, parts, seeds)

    return Listed(distinct, scores, others[distinct], seeds_of)


def _summed(indexes: Indexes, parts: NDArray[np.float64], items_count: int) -> tuple[Indexes, NDArray[np.float64]]:
    """The distinct indexes, ascending, and the sum of the parts of each."""
    if len(indexes) * _DENSE_FROM > items_count:
        sums = np.bincount(indexes, parts, items_count)
        distinct = np.flatnonzero(sums).astype(np.int32)
        return distinct, sums[distinct]
    distinct, inverse = np.unique(indexes, return_inverse=True)
    return distinct, np.bincount(inverse, parts)


def _strongest(items: Indexes, indexes: Indexes, parts: NDArray[np.float64], seeds: Indexes) -> Indexes:
    """int32[k]: the seed with the greatest part of each item."""
    order = np.argsort(items)
    places = np.minimum(np.searchsorted(items, indexes, sorter=order), len(items) - 1)
    rows = order[places]
    asked = items[rows] == indexes
    rows, parts, seeds = rows[asked], parts[asked], seeds[asked]
    best = np.zeros(len(items))
    np.maximum.at(best, rows, parts)
    strongest = parts == best[rows]
    chosen = np.full(len(items), -1, np.int32)
    chosen[rows[strongest][::-1]] = seeds[strongest][::-1]
    return chosen
