"""Category trends: what is popular now in the categories this user likes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.candidates.opinion import Listed, Opinion
from shared.candidates.query import Query
from shared.candidates.trends import Trends
from shared.features.definitions import Retrieval

CATEGORIES: Final = 5
DEPTH: Final = 100
"""The most items of one category."""


@dataclass(frozen=True, slots=True)
class CategorySource:
    """The user's share of taste in a category times the item's share of that category's best; request time.

    Taste is what she did, and the favourites she named: these alone make a list for someone who did nothing.
    """

    name: Retrieval = Retrieval.CATEGORY

    def consider(self, query: Query) -> Opinion:
        """The top of the five categories most to the user's taste, without what she touched already."""
        indexes = query.history.indexes
        codes = query.trends.category[indexes]
        known = codes >= 0
        age = np.arange(len(indexes))
        weights, favourites = (query.history.weights * 0.95**age)[known], query.favourites
        taste = np.bincount(codes[known], weights=weights, minlength=len(favourites)).astype(np.float64)
        taste[: len(favourites)] += favourites
        untouched = query.eligible.copy()
        untouched[indexes] = False
        lists, scores = [], []
        for code in _foremost(taste, query.trends):
            best = query.trends.by_category[int(code)]
            best = best[untouched[best]][:DEPTH]
            if len(best):
                trend = query.trends.scores[best]
                lists.append(best)
                scores.append(taste[code] / taste.sum() * (trend + 1e-6) / (trend[0] + 1e-6))
        if not lists:
            return Listed.nothing()
        return Listed.of(np.concatenate(lists).astype(np.int32), np.concatenate(scores), query.eligible)


def _foremost(taste: NDArray[np.float64], trends: Trends) -> list[int]:
    """Category codes by taste, of equals the one with the more popular best item: codes differ between processes."""
    codes = np.flatnonzero(taste[: len(trends.best)] > 0)
    codes = codes[trends.best[codes] >= 0]
    best = trends.best[codes]
    foremost: list[int] = codes[np.lexsort((best, -trends.scores[best], -taste[codes]))][:CATEGORIES].tolist()
    return foremost
