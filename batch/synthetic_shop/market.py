"""What changes about the products from day to day: price, stock, visibility, and how much they are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from batch.synthetic_shop.catalog import NEVER, Catalog, Floats, Ints
from batch.synthetic_shop.streams import random_stream

_DISCOUNTS = (0.9, 0.85, 0.8, 0.7)
_DISCOUNT_CHANCE = 0.004
_NEW_PRICE_CHANCE = 0.0008
_RESTOCK_CHANCE = 0.2
_SOLD_OUT_CHANCE = 0.004
_LOW_STOCK = 5
_NOVELTY_DAYS = 6.0
_VIRAL_DAYS = 2.5


@dataclass(frozen=True, slots=True)
class MarketDay:
    """The shop's products on one day.

    `weight` (items,) is how much each is looked at, 0 where it cannot be seen; `cumulative` (items + 1,) is its
    running sum, so a leaf's or family's share is a difference; `hot` is the running sum of what is new or viral.
    `discount` is the share taken off; `updates` are the fields that tonight's import sets, per item.
    """

    day: int
    weight: Floats
    cumulative: Floats
    hot: Floats
    price_cents: Ints
    discount: Floats
    in_stock: npt.NDArray[np.bool_]
    updates: dict[int, dict[str, int | bool]]


@dataclass(slots=True)
class Market:
    """The state that a day hands to the next; call `open_day` for every day in order."""

    seed: int
    catalog: Catalog
    purchases_per_day: float
    _list_price: Ints = field(init=False)
    _factor: Floats = field(init=False)
    _until: Ints = field(init=False)
    _stock: Ints = field(init=False)
    _demand: Floats = field(init=False)
    _phases: Floats = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.catalog)
        random = random_stream(self.seed, "market")
        self._list_price = self.catalog.price_cents.copy()
        self._factor = np.ones(count)
        self._until = np.full(count, -1, np.int64)
        base = np.exp(self.catalog.appeal)
        self._demand = self.purchases_per_day * base / base.sum()
        self._stock = np.where(random.random(count) < 0.02, 0, self._lot(random))
        self._phases = random.random((2, count))

    def initial_stock(self) -> Ints:
        """Units in stock before the first day."""
        return self._stock.copy()

    def open_day(self, day: int) -> MarketDay:
        """Run the import of the night before `day` and say what the day looks like."""
        catalog = self.catalog
        random = random_stream(self.seed, "import", day)
        present = (catalog.arrival_day < day) | (catalog.arrival_day == -1)
        updates: dict[int, dict[str, int | bool]] = {}
        self._reprice(day, random, present, updates)
        self._move_stock(random, present, updates)
        for item in np.flatnonzero(catalog.hidden_day == day):
            updates.setdefault(int(item), {})["hidden"] = True
        weight, hot = self._attention(day)
        return MarketDay(
            day=day,
            weight=weight,
            cumulative=np.concatenate([[0.0], np.cumsum(weight)]),
            hot=np.concatenate([[0.0], np.cumsum(hot)]),
            price_cents=self._price(),
            discount=1 - self._factor,
            in_stock=self._stock > 0,
            updates=updates,
        )

    def _price(self) -> Ints:
        return np.maximum(np.round(self._list_price * self._factor), 1).astype(np.int64)

    def _lot(self, random: np.random.Generator) -> Ints:
        days = 15 + 30 * random.random(len(self.catalog))
        return np.ceil(3 + self._demand * days * np.exp(random.normal(0, 0.3, len(days)))).astype(np.int64)

    def _reprice(
        self,
        day: int,
        random: np.random.Generator,
        present: npt.NDArray[np.bool_],
        updates: dict[int, dict[str, int | bool]],
    ) -> None:
        count = len(self.catalog)
        before = self._price()
        chance, span, level = (
            random.random(count),
            random.integers(3, 11, count),
            random.integers(0, len(_DISCOUNTS), count),
        )
        shift = np.exp(random.normal(0, 0.06, count))
        self._factor = np.where(self._until <= day, 1.0, self._factor)
        starts = present & (chance < _DISCOUNT_CHANCE) & (self._factor == 1.0)
        self._factor = np.where(starts, np.array(_DISCOUNTS)[level], self._factor)
        self._until = np.where(starts, day + span, self._until)
        moved = present & (chance > 1 - _NEW_PRICE_CHANCE)
        self._list_price = np.where(moved, np.maximum(49, np.round(self._list_price * shift)), self._list_price).astype(
            np.int64
        )
        after = self._price()
        for item in np.flatnonzero(present & (after != before)):
            updates.setdefault(int(item), {})["price_cents"] = int(after[item])

    def _move_stock(
        self, random: np.random.Generator, present: npt.NDArray[np.bool_], updates: dict[int, dict[str, int | bool]]
    ) -> None:
        before = self._stock
        # Now and then the rest goes at once: another channel, a damaged pallet, a withdrawn batch.
        gone = random.random(len(before)) < _SOLD_OUT_CHANCE
        sold = np.where(gone, before, np.minimum(random.poisson(self._demand), before)) * present
        restocked = present & (before == 0) & (random.random(len(before)) < _RESTOCK_CHANCE)
        lots = self._lot(random)
        self._stock = np.where(restocked, lots, before - sold)
        told = restocked | ((before > 0) & (self._stock == 0)) | ((before > _LOW_STOCK) & (self._stock <= _LOW_STOCK))
        for item in np.flatnonzero(told):
            updates.setdefault(int(item), {})["stock"] = int(self._stock[item])

    def _attention(self, day: int) -> tuple[Floats, Floats]:
        """Weight of every item in what is looked at, and the part of it that is news (Floats (items,) each)."""
        catalog = self.catalog
        period = 25 + 60 * self._phases[0]
        drift = 0.45 * np.sin(2 * np.pi * (day / period + self._phases[1]))
        trend = 0.3 * np.sin(2 * np.pi * (day / 80 + 0.37 * catalog.leaf))
        base = np.exp(catalog.appeal + drift + trend + 2.0 * (1 - self._factor))
        age = (day - catalog.arrival_day).astype(np.float64)
        new = np.where(catalog.arrival_day >= 0, np.exp(-np.maximum(age, 0) / _NOVELTY_DAYS), 0.0)
        since = (day - catalog.viral_day).astype(np.float64)
        viral = np.where((since >= 0) & (catalog.viral_day != NEVER), np.exp(-np.maximum(since, 0) / _VIRAL_DAYS), 0.0)
        visible = (catalog.arrival_day <= day) & (catalog.hidden_day > day)
        news = (2.0 * base * new + 8.0 * np.exp(1.0) * viral) * visible
        weight = (base * visible + news) * np.where(self._stock > 0, 1.0, 0.35)
        return weight, news * (self._stock > 0)
