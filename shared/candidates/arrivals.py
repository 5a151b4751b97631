"""New arrivals: items so young that no other source can know them, those like what the user likes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.candidates.opinion import Listed, Opinion
from shared.candidates.query import Query
from shared.features.aggregations import DAY_MS, NEVER
from shared.features.definitions import Retrieval

YOUNG_MS: Final = 30 * DAY_MS
BRAND_WEIGHT: Final = 0.5
PRICE_WEIGHT: Final = 0.25


@dataclass(frozen=True, slots=True)
class ArrivalsSource:
    """Items that arrived within 30 days, those with the attributes of the user's own first; request time."""

    name: Retrieval = Retrieval.ARRIVALS

    def consider(self, query: Query) -> Opinion:
        """Freshness in (0, 1], plus the shares of the user's recent items of its category and brand, and nearness.

        Nearness is 1 at the geometric mean of her prices and halves with every factor of 2 between.
        """
        trends, history = query.trends, query.history.indexes
        arrived_at = trends.arrived_at
        young = (arrived_at != NEVER) & (arrived_at <= query.as_of) & (arrived_at > query.as_of - YOUNG_MS)
        indexes = np.flatnonzero(young & query.eligible).astype(np.int32)
        if not len(indexes):
            return Listed.nothing()
        freshness = 1 - (query.as_of - arrived_at[indexes]) / YOUNG_MS
        scores = (
            freshness
            + _share(trends.category[indexes], trends.category[history])
            + BRAND_WEIGHT * _share(trends.brand[indexes], trends.brand[history])
            + PRICE_WEIGHT * _nearness(trends.price_cents[indexes], trends.price_cents[history])
        )
        return Listed.of(indexes, scores + 1e-6, query.eligible)


def _share(codes: NDArray[np.int64], liked: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64[n] in [0, 1]: the share of `liked` that has each code; codes below 0 are none."""
    liked = liked[liked >= 0]
    if not len(liked):
        return np.zeros(len(codes))
    size = int(max(codes.max(initial=0), liked.max())) + 1
    share = np.bincount(liked, minlength=size) / len(liked)
    return np.where(codes >= 0, share[np.maximum(codes, 0)], 0.0)


def _nearness(price_cents: NDArray[np.float64], liked: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n] in [0, 1]; 0 where either side has no price."""
    liked = liked[liked > 0]
    if not len(liked):
        return np.zeros(len(price_cents))
    apart = np.abs(np.log2(np.maximum(price_cents, 1.0)) - np.log2(liked).mean())
    return np.where(price_cents > 0, np.exp2(-apart), 0.0)
