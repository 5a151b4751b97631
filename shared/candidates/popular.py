"""Global popularity, recency-weighted: the first page of a stranger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.candidates.opinion import Opinion
from shared.candidates.query import Query
from shared.candidates.ranked import Indexes, Ranked, Scores
from shared.candidates.trends import Trends
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class PopularSource:
    """The most popular eligible items now; request time."""

    name: Retrieval = Retrieval.POPULAR

    def consider(self, query: Query) -> Opinion:
        """Scores are decayed weighted actions, plus a trifle so that an untouched item still has an order."""
        return _Trending(query.trends, query.eligible)


@dataclass(frozen=True, slots=True)
class _Trending:
    """The trends as an opinion: their order stands already, no item is scored twice."""

    trends: Trends
    eligible: NDArray[np.bool_]

    def top(self, limit: int) -> Ranked:
        order = self.trends.order
        best = order[self.eligible[order]][:limit]
        return Ranked.seedless(best, self.trends.scores[best] + 1e-6)

    def at(self, candidates: Indexes) -> Scores:
        return np.asarray(self.trends.scores[candidates] + 1e-6, dtype=np.float32)
