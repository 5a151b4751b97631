"""Pages ranked by sources and by rankers: where the positives stand, and what is shown first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batch.evaluation.page_view import Block, View
from batch.metrics import Places, hits_matrix, mid_places, places_of_hits
from shared.features.definitions import Retrieval
from shared.features.vector import SCHEMA, Matrix
from shared.ranking.rules import diversify

K: Final = 20
"""How many places a list that is shown has."""

Score = Callable[[Matrix], NDArray[np.float32]]
"""float32[n, F] features to float32[n]."""
Lists = NDArray[np.int32]
"""[queries, K] item indexes in order, -1 pads."""
Ranks = NDArray[np.int32]
"""[queries, n] from 1; 0 is not in the list."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one method made of the queries of a view."""

    places: Places
    lists: Lists

    @classmethod
    def joined(cls, view: View, blocks: Sequence[tuple[NDArray[np.int64], Places, Lists]]) -> Ranking:
        """Of the blocks of a view, each with the places of its queries among the view's."""
        lists = np.full((len(view.chosen), K), -1, dtype=np.int32)
        for at, _, shown in blocks:
            lists[at] = shown
        query = np.concatenate([at[places.query] for at, places, _ in blocks])
        place = np.concatenate([places.place for _, places, _ in blocks])
        return cls(Places(query, place, view.counts), lists)


def rank_sources(view: View, sources: Sequence[Retrieval]) -> dict[str, Ranking]:
    """Each source alone, in its own order; equal scores share their mean place."""
    found: dict[str, list[tuple[NDArray[np.int64], Places, Lists]]] = {str(name): [] for name in sources}
    columns = {name: list(Retrieval).index(name) for name in sources}
    for block in view.blocks():
        index = block.column(view.pages.index)
        for name in sources:
            carried = block.spread(block.ranks[:, columns[name]]).astype(np.int32)
            scores = block.spread(block.features[:, SCHEMA.names.index(f"retrieval_{name}_score")])
            ranks = _ranks(-carried.astype(np.float64), (carried > 0) & block.allowed)
            found[str(name)].append(_result(block, ranks, scores, index))
    return {name: Ranking.joined(view, blocks) for name, blocks in found.items()}


def rank_by(view: View, rankers: Mapping[str, Score], max_per_category: int) -> dict[str, Ranking]:
    """Each ranker under the rules that serve: a stranger's page by popularity, so many of a category (0: any)."""
    found: dict[str, list[tuple[NDArray[np.int64], Places, Lists]]] = {name: [] for name in rankers}
    for block in view.blocks():
        index, popularity = block.column(view.pages.index), block.column(view.pages.popularity)
        stranger = np.asarray(view.pages.stranger[block.queries])
        for name, score in rankers.items():
            keys = np.where(stranger[:, None], popularity, block.spread(score(block.features)))
            ranks = _ranks(keys, block.allowed)
            if max_per_category:
                ranks = _diverse(ranks, block.column(view.pages.category), max_per_category)
                keys = -ranks.astype(np.float32)  # the rule has the last word: what is shown has no ties
            found[name].append(_result(block, ranks, keys, index))
    return {name: Ranking.joined(view, blocks) for name, blocks in found.items()}


def rank_lists(view: View, lists: NDArray[np.integer]) -> Ranking:
    """Lists [queries of the page table, places] that another method made, item indexes with -1 padding."""
    chosen = np.asarray(lists[view.chosen])
    shown = np.full((len(chosen), K), -1, dtype=np.int32)
    shown[:, : min(K, chosen.shape[1])] = chosen[:, :K]
    return Ranking(places_of_hits(hits_matrix(chosen, view.positives()), view.counts), shown)


def _ranks(keys: NDArray[np.floating], there: NDArray[np.bool_]) -> Ranks:
    """Ranks by descending key among the entries that are there; equal keys in the order of columns."""
    order = np.argsort(np.where(there, -keys, np.inf), axis=1, kind="stable")
    ranks = np.empty(keys.shape, dtype=np.int32)
    np.put_along_axis(ranks, order, np.arange(1, keys.shape[1] + 1, dtype=np.int32)[None, :], axis=1)
    return np.where(there, ranks, 0)


def _result(
    block: Block, ranks: Ranks, scores: NDArray[np.floating], index: NDArray[np.int32]
) -> tuple[NDArray[np.int64], Places, Lists]:
    lists = np.full((len(ranks), K), -1, dtype=np.int32)
    query, column = np.nonzero((ranks > 0) & (ranks <= K))
    lists[query, ranks[query, column] - 1] = index[query, column]
    return block.at, mid_places(ranks, scores, block.wanted, block.view.counts[block.at]), lists


def _diverse(ranks: Ranks, category: NDArray[np.int64], max_per_category: int) -> Ranks:
    shown = np.zeros_like(ranks)
    for query in range(len(ranks)):
        there = np.flatnonzero(ranks[query])
        order = there[np.argsort(ranks[query, there])]
        page = diversify(order, category[query], K, max_per_category)
        shown[query, page] = np.arange(1, len(page) + 1)
    return shown
