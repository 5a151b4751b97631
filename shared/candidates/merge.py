"""The union of all sources: one candidate set with who carried what, where and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from shared.candidates.covisitation import covisitation
from shared.candidates.opinion import Opinion
from shared.candidates.params import SourceParams
from shared.candidates.query import Query
from shared.candidates.ranked import Indexes, Scores
from shared.features.definitions import Retrieval
from shared.features.views import RetrievalBlock

MINIMUM: Final = 200


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """n candidates, ascending: int32[n] indexes, what each source said, int32[n, S] the seed behind it (-1: none)."""

    indexes: Indexes
    retrieval: RetrievalBlock
    via: Indexes

    def with_text(self, scores: Scores) -> CandidateSet:
        """The same candidates, with how well each fits the words of a search (float32[n], above 0 for the best)."""
        share = (scores / scores.max(initial=0)).astype(np.float32) if len(scores) else scores
        return replace(self, retrieval=replace(self.retrieval, text=share))


def merge(
    opinions: Mapping[Retrieval, Opinion], query: Query, params: SourceParams, minimum: int = MINIMUM
) -> CandidateSet:
    """Unite what the sources put forward, and let each score all of it.

    Too small a union is filled from the most popular eligible items.
    """
    lists = {name: opinion.top(params.limit(name)) for name, opinion in opinions.items()}
    union = np.unique(np.concatenate([ranked.indexes for ranked in lists.values()]))
    if len(union) < minimum:
        popular = query.trends.first(query.eligible, minimum + len(union))
        fill = popular[~np.isin(popular, union)][: minimum - len(union)]
        union = np.union1d(union, fill)
    union = union.astype(np.int32)
    ranks = np.zeros((len(union), len(Retrieval)), dtype=np.int16)
    scores = np.zeros((len(union), len(Retrieval)), dtype=np.float32)
    via = np.full((len(union), len(Retrieval)), -1, dtype=np.int32)
    for column, name in enumerate(Retrieval):
        if name not in opinions:
            continue
        said = opinions[name].at(union)
        ranked = lists[name]
        best = ranked.scores[0] if len(ranked.scores) else said.max(initial=0)
        if best > 0:
            scores[:, column] = said / best
        rows = np.searchsorted(union, ranked.indexes)
        ranks[rows, column] = np.arange(1, len(rows) + 1)
        via[rows, column] = ranked.via
    text = np.zeros(len(union), dtype=np.float32)
    return CandidateSet(union, RetrievalBlock(ranks, scores, covisitation(union, query), text), via)
