"""Global popularity, recency-weighted: the first page of a stranger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.candidates.query import Query, Ranked
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class PopularSource:
    """The most popular eligible items now; request time."""

    name: Retrieval = Retrieval.POPULAR

    def retrieve(self, query: Query, limit: int) -> Ranked:
        """Scores are decayed weighted actions, plus a trifle so that an untouched item still has an order."""
        order = query.trends.order
        best = order[query.eligible[order]][:limit].astype(np.int32)
        return Ranked(best, (query.trends.scores[best] + 1e-6).astype(np.float32), np.full(len(best), -1, np.int32))
