"""Popularity: what is wanted now, more of it where the user's taste lies; the first page of a stranger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.candidates.opinion import Opinion
from shared.candidates.params import DEFAULT, PopularParams
from shared.candidates.query import Query
from shared.candidates.ranked import Indexes, Ranked, Scores
from shared.candidates.trends import LEAST, Trends
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class PopularSource:
    """An item's trend times how much its category is the user's; request time.

    Taste is what she did and the favourites she named. Someone of whom nothing is known gets plain popularity.
    """

    params: PopularParams = DEFAULT.popular
    name: Retrieval = Retrieval.POPULAR

    def consider(self, query: Query) -> Opinion:
        """Scores are trends, each times a factor of its category."""
        trends = query.trends.rising(self.params.momentum)
        taste = self._taste(query, trends)
        if not len(query.history.indexes):
            return Trending(trends, query.eligible, _named_first(taste, trends, query.eligible))
        total = taste.sum()
        lift = taste / total / (trends.category_share + self.params.prior_share) if total > 0 else taste
        return Trending(trends, query.eligible, 1 + self.params.taste * lift)

    def _taste(self, query: Query, trends: Trends) -> NDArray[np.float64]:
        """float64[c]: the weight of each of her foremost category codes, 0 for all others."""
        codes = trends.category[query.history.indexes]
        weights = query.history.weights * self.params.taste_decay ** np.arange(len(codes))
        known = codes >= 0
        taste = np.bincount(codes[known], weights[known], minlength=len(trends.best)).astype(np.float64)
        named = query.favourites[: len(taste)]
        taste[: len(named)] += named
        foremost = _foremost(taste, trends)[: self.params.categories]
        kept = np.zeros(len(taste))
        kept[foremost] = taste[foremost]
        return kept


@dataclass(frozen=True, slots=True)
class Trending:
    """Trends as an opinion, times `factors` (float64[c] >= 1) by category code; their order is not sorted again."""

    trends: Trends
    eligible: NDArray[np.bool_]
    factors: NDArray[np.float64]

    def top(self, limit: int) -> Ranked:
        """See `Opinion`. Of one category the order is that of the trends, so each gives its first."""
        lifted = np.flatnonzero(self.factors > 1).tolist()
        firsts = [self.trends.first(self.eligible, limit, code) for code in lifted]
        indexes = np.unique(np.concatenate([self.trends.first(self.eligible, limit), *firsts]))
        return Ranked.top(indexes.astype(np.int32), self._scores(indexes), limit)

    def at(self, candidates: Indexes) -> Scores:
        """See `Opinion`."""
        return self._scores(candidates).astype(np.float32)

    def _scores(self, indexes: NDArray[np.integer]) -> NDArray[np.float64]:
        codes = self.trends.category[indexes]
        factors = np.append(self.factors, 1.0)  # the last one is what -1 finds
        return np.asarray((self.trends.scores[indexes] + LEAST) * factors[codes])


def _named_first(taste: NDArray[np.float64], trends: Trends, eligible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64[c]: factors by which the best of the first favourite comes before all that is popular elsewhere.

    In units of the shop's most popular item, an item has its popularity, plus that over its category's best times the
    category's taste over the foremost one's.
    """
    factors = np.ones(len(taste))
    if taste.any():
        top = trends.scores[trends.order[0]] + LEAST
        for code in np.flatnonzero(taste).tolist():
            best = trends.first(eligible, 1, code)
            if len(best):
                factors[code] += taste[code] / taste.max() * top / (trends.scores[best[0]] + LEAST)
    return factors


def _foremost(taste: NDArray[np.float64], trends: Trends) -> NDArray[np.int64]:
    """Category codes by taste, of equals the one with the more popular best item: codes differ between processes."""
    codes = np.flatnonzero(taste > 0)
    codes = codes[trends.best[codes] >= 0]
    best = trends.best[codes]
    return codes[np.lexsort((best, -trends.scores[best], -taste[codes]))]
