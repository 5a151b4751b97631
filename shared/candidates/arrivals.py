"""New arrivals: items so young that no other source can know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from shared.candidates.query import Query, Ranked
from shared.features.aggregations import DAY_MS, NEVER
from shared.features.definitions import Retrieval

YOUNG_MS: Final = 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class ArrivalsSource:
    """Items that arrived within 30 days, the user's categories first; request time."""

    name: Retrieval = Retrieval.ARRIVALS

    def retrieve(self, query: Query, limit: int) -> Ranked:
        """Freshness in (0, 1], plus the share of the user's recent items in the same category."""
        trends = query.trends
        arrived_at = trends.arrived_at
        young = (arrived_at != NEVER) & (arrived_at <= query.as_of) & (arrived_at > query.as_of - YOUNG_MS)
        indexes = np.flatnonzero(young & query.eligible).astype(np.int32)
        if not len(indexes):
            return Ranked.none()
        freshness = 1 - (query.as_of - arrived_at[indexes]) / YOUNG_MS
        liked = trends.category[query.history.indexes]
        liked = liked[liked >= 0]
        codes = trends.category[indexes]
        size = int(max(codes.max(initial=0), liked.max(initial=0))) + 1
        share = np.bincount(liked, minlength=size) / max(len(liked), 1)
        return Ranked.top(indexes, freshness + np.where(codes >= 0, share[np.maximum(codes, 0)], 0.0) + 1e-6, limit)
