"""What is popular now: recency-weighted, by category, from the same counters that features read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.features.aggregations import decay
from shared.features.definitions import decayed
from shared.features.items import ItemTable, elapsed_ms
from shared.features.views import ACTION_WEIGHT, Rows

TREND_SPAN: Final = "7d"


@dataclass(frozen=True)
class Trends:
    """Popularity of n_items at the newest folded instant, and what else sources compare items by.

    One half-life for all makes the order independent of when it is read: every score decays by the same factor.
    `category` and `brand` are codes (-1: none), `arrived_at` epoch ms, `price_cents` 0 where no price is known.
    """

    scores: NDArray[np.float64]
    category: NDArray[np.int64]
    arrived_at: NDArray[np.int64]
    brand: NDArray[np.int64]
    price_cents: NDArray[np.float64]

    @classmethod
    def of(cls, table: ItemTable, rows: Rows) -> Trends:
        """From the table's counters for these rows (a release's items in index order)."""
        counters = table.counters
        slots = [counters.layout.slot[decayed(kind, TREND_SPAN)] for kind in ACTION_WEIGHT]
        elapsed = elapsed_ms(counters.newest_at[rows], table.newest_at)
        half_lives = counters.layout.half_lives_ms[slots]
        values = decay(counters.decayed[np.ix_(rows, slots)], elapsed, half_lives)
        return cls(
            values @ np.array(list(ACTION_WEIGHT.values())),
            table.category[rows],
            table.arrived_at[rows],
            table.brand[rows],
            table.price_cents[rows],
        )

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """All indexes, most popular first."""
        return np.argsort(-self.scores, kind="stable")

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
