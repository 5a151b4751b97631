"""What is popular now: recency-weighted, by category, from the same counters that features read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.features.aggregations import decay
from shared.features.definitions import decayed
from shared.features.items import ItemTable, elapsed_ms
from shared.features.views import ACTION_WEIGHT, Rows

TREND_SPAN: Final = "7d"
DAY_SPAN: Final = "1d"
DAYS_OF_TREND: Final = 7
STEADY: Final = 3.0
"""So many weighted actions a week are added to both sides of an item's rise: few actions are no rise."""
_AHEAD: Final = 4
LEAST: Final = 1e-6
"""A trifle, so that items that nobody touched have an order, too."""


@dataclass(frozen=True)
class Trends:
    """Popularity of n_items at the newest folded instant, and what else sources compare items by.

    One half-life for all makes the order independent of when it is read: every score decays by the same factor.
    `category` and `brand` are codes (-1: none), `arrived_at` epoch ms, `price_cents` 0 where no price is known; `rise`
    is the last day against the week's daily mean (1: steady), empty where it is not told.
    """

    scores: NDArray[np.float64]
    category: NDArray[np.int64]
    arrived_at: NDArray[np.int64]
    brand: NDArray[np.int64]
    price_cents: NDArray[np.float64]
    rise: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    _risen: dict[float, Trends] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, table: ItemTable, rows: Rows) -> Trends:
        """From the table's counters for these rows (a release's items in index order)."""
        week, day = _weighted(table, rows, TREND_SPAN), _weighted(table, rows, DAY_SPAN)
        return cls(
            week,
            table.category[rows],
            table.arrived_at[rows],
            table.brand[rows],
            table.price_cents[rows],
            (DAYS_OF_TREND * day + STEADY) / (week + STEADY),
        )

    def rising(self, power: float) -> Trends:
        """These trends with each score times its rise to a power; made once."""
        if not power or not len(self.rise):
            return self
        if power not in self._risen:
            self._risen[power] = replace(self, scores=self.scores * self.rise**power, rise=np.empty(0), _risen={})
        return self._risen[power]

    @cached_property
    def mean(self) -> float:
        """The mean score; 0 in a shop where nobody did anything."""
        return float(self.scores.mean()) if len(self.scores) else 0.0

    def against_mean(self, indexes: NDArray[np.integer]) -> NDArray[np.float64]:
        """float64[m]: the items' scores over the mean; 0 where there is none."""
        return self.scores[indexes] / self.mean if self.mean > 0 else np.zeros(len(indexes))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """All indexes, most popular first."""
        return np.argsort(-self.scores, kind="stable")

    def first(self, allowed: NDArray[np.bool_], limit: int, code: int | None = None) -> NDArray[np.int64]:
        """The `limit` most popular of what is allowed (bool[n_items]), of one category code or of all."""
        order = self.order if code is None else self.by_category.get(code, np.empty(0, np.int64))
        ahead = _AHEAD * limit
        while True:  # nearly always the first look is enough: what may be shown is most of the shop
            head = order[:ahead]
            found = head[allowed[head]][:limit]
            if len(found) == limit or ahead >= len(order):
                return found
            ahead *= _AHEAD

    @cached_property
    def category_share(self) -> NDArray[np.float64]:
        """float64[c] in [0, 1]: each category code's share of all scores; zeros where nobody did anything."""
        known = self.category >= 0
        sums = np.bincount(self.category[known], self.scores[known], minlength=len(self.best))
        return np.asarray(sums / max(self.mean * len(self.scores), LEAST))

    @cached_property
    def by_category(self) -> dict[int, NDArray[np.int64]]:
        """Indexes of each category code, most popular first."""
        if not len(self.order):
            return {}
        codes = self.category[self.order]
        grouped = np.argsort(codes, kind="stable")
        values, starts = np.unique(codes[grouped], return_index=True)
        return dict(zip(values.tolist(), np.split(self.order[grouped], starts[1:]), strict=True))

    @cached_property
    def best(self) -> NDArray[np.int64]:
        """int64[c]: the most popular index of each category code, -1 where no item has it."""
        best = np.full(int(self.category.max(initial=-1)) + 1, -1, dtype=np.int64)
        for code, indexes in self.by_category.items():
            if code >= 0:
                best[code] = indexes[0]
        return best


def _weighted(table: ItemTable, rows: Rows, span: str) -> NDArray[np.float64]:
    """float64[n]: weighted actions on each row, halved every `span`, at the table's newest instant."""
    counters = table.counters
    slots = [counters.layout.slot[decayed(kind, span)] for kind in ACTION_WEIGHT]
    elapsed = elapsed_ms(counters.newest_at[rows], table.newest_at)
    values = decay(counters.decayed[np.ix_(rows, slots)], elapsed, counters.layout.half_lives_ms[slots])
    return np.asarray(values @ np.array(list(ACTION_WEIGHT.values())))
