"""Category trends: what is popular now in the categories this user likes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from shared.candidates.query import Query, Ranked
from shared.features.definitions import Retrieval

CATEGORIES: Final = 5


@dataclass(frozen=True, slots=True)
class CategorySource:
    """The user's share of taste in a category times the item's share of that category's best; request time."""

    name: Retrieval = Retrieval.CATEGORY

    def retrieve(self, query: Query, limit: int) -> Ranked:
        """The top of the user's five favourite categories, without what she touched already."""
        indexes = query.history.indexes
        codes = query.trends.category[indexes]
        known = codes >= 0
        if not known.any():
            return Ranked.none()
        age = np.arange(len(indexes))
        taste = np.bincount(codes[known], weights=(query.history.weights * 0.95**age)[known])
        untouched = query.eligible.copy()
        untouched[indexes] = False
        lists, scores = [], []
        for code in np.argsort(-taste, kind="stable")[:CATEGORIES]:
            if taste[code] <= 0:
                break
            best = query.trends.by_category[int(code)]
            best = best[untouched[best]][:limit]
            if len(best):
                trend = query.trends.scores[best]
                lists.append(best)
                scores.append(taste[code] / taste.sum() * (trend + 1e-6) / (trend[0] + 1e-6))
        if not lists:
            return Ranked.none()
        return Ranked.top(np.concatenate(lists).astype(np.int32), np.concatenate(scores), limit)
