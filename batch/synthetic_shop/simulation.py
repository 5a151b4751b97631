"""The loop over days and blocks of shoppers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from batch.synthetic_shop.calendar import Calendar
from batch.synthetic_shop.catalog import Catalog, Floats, Ints, build_catalog
from batch.synthetic_shop.funnel import draw_actions, settle
from batch.synthetic_shop.market import Market, MarketDay
from batch.synthetic_shop.memory import Memory
from batch.synthetic_shop.scene import Scene
from batch.synthetic_shop.shoppers import BLOCK_SHOPPERS, Shoppers, build_block
from batch.synthetic_shop.streams import random_stream
from batch.synthetic_shop.visits import MEAN_EVENTS, draw_views

_PURCHASES_PER_EVENT = 0.025
_VISITS_A_DAY = 3
_MOMENTUM = 0.5
_BETWEEN_VISITS_MS = 31 * 60_000

BlockOrder = Callable[[int, int], Sequence[int]]
"""(day, number of blocks) -> the order in which that day's blocks run; it may not change the result."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Events of shoppers, one row each; `visit` numbers a shopper block's visits of the day."""

    shopper: Ints
    item: Ints
    type_code: Ints
    occurred_at: Ints
    block: Ints
    visit: Ints


@dataclass(frozen=True, slots=True)
class ShopDay:
    """One day of the shop: what the import changed, and what shoppers did, in time order."""

    market: MarketDay
    behaviour: Behaviour


class Simulation:
    """A shop of `users`, `items` and about `events` events over the calendar's days.

    A block's day needs its day before and the shared market, nothing of other blocks: blocks could run in parallel.
    """

    def __init__(self, seed: int, users: int, items: int, events: int, calendar: Calendar) -> None:
        self.seed = seed
        self.calendar = calendar
        self.catalog: Catalog = build_catalog(seed, items, calendar)
        self.market = Market(seed, self.catalog, events * _PURCHASES_PER_EVENT / calendar.days)
        visits = events / users / MEAN_EVENTS
        sizes = [min(BLOCK_SHOPPERS, users - first) for first in range(0, users, BLOCK_SHOPPERS)]
        self.blocks = [
            build_block(seed, number, size, self.catalog, days=calendar.days, visits_per_shopper=visits)
            for number, size in enumerate(sizes)
        ]
        self._memories = [Memory.empty(size) for size in sizes]
        self._budgets = _budgets(self.blocks, events, calendar)

    def days(self, order: BlockOrder | None = None) -> Iterator[ShopDay]:
        """Run the shop; call once. `order` permutes the execution of blocks within each day."""
        for day in range(self.calendar.days):
            market = self.market.open_day(day)
            numbers = range(len(self.blocks)) if order is None else order(day, len(self.blocks))
            done = {number: self._run_block(number, market) for number in numbers}
            yield ShopDay(market, _in_time_order([done[number] for number in range(len(self.blocks))]))

    def _run_block(self, number: int, market: MarketDay) -> Behaviour:
        shoppers, memory, day = self.blocks[number], self._memories[number], market.day
        random = random_stream(self.seed, "visits", day, number)
        scene = Scene(shoppers, memory, self.catalog, market, random)
        memory.new_day()
        visitors, starts = self._draw_visitors(number, day, random)
        turn = _turns(visitors)
        free_at = np.zeros(len(shoppers), np.int64)
        parts: list[Behaviour] = []
        visit_base = 0
        for round_number in range(int(turn.max(initial=-1)) + 1):
            rows = turn == round_number
            shopper = visitors[rows]
            start = np.maximum(starts[rows], free_at[shopper])
            actions = draw_actions(shopper, draw_views(shopper, scene), scene)
            at = start[actions.visit] + actions.after_ms
            before_midnight = at < self.calendar.stops_at[day]
            actions, at = actions.select(before_midnight), at[before_midnight]
            settle(shopper, actions, scene)
            np.maximum.at(free_at, shopper[actions.visit], at + _BETWEEN_VISITS_MS)
            parts.append(
                Behaviour(
                    shopper=shopper[actions.visit] + number * BLOCK_SHOPPERS,
                    item=actions.item,
                    type_code=actions.type_code,
                    occurred_at=at,
                    block=np.full(len(at), number),
                    visit=visit_base + actions.visit,
                )
            )
            visit_base += len(shopper)
        result = _concatenate(parts)
        memory.events += len(result.item)
        return result

    def _draw_visitors(self, number: int, day: int, random: np.random.Generator) -> tuple[Ints, Ints]:
        """(shoppers, starts) of the day's visits, ordered by shopper and start; first visits come for sure."""
        shoppers, memory = self.blocks[number], self._memories[number]
        newcomers = np.flatnonzero(shoppers.first_day == day)
        due = (self._budgets[number, day] - memory.events) / MEAN_EVENTS - len(newcomers)
        weight = shoppers.rate * (1 + _MOMENTUM * np.minimum(memory.momentum, 3.0)) * (shoppers.first_day <= day)
        count = int(np.floor(max(0.0, due) + random.random())) if weight.any() else 0
        running = np.cumsum(weight)
        mark = random.random(count) * running[-1]
        drawn = np.minimum(np.searchsorted(running, mark, side="right"), len(shoppers) - 1)
        visitors = np.sort(np.concatenate([newcomers, drawn]))
        visitors = visitors[_turns(visitors) < _VISITS_A_DAY]
        starts = self.calendar.draw_times(day, len(visitors), random)
        return visitors, starts[np.lexsort((starts, visitors))]


def _budgets(blocks: Sequence[Shoppers], events: int, calendar: Calendar) -> Floats:
    """Events that each block should have produced by the end of each day, (blocks, days)."""
    active = np.stack(
        [np.cumsum(np.bincount(block.first_day, block.rate, minlength=calendar.days)) for block in blocks]
    )
    demand = active * calendar.traffic
    budgets: Floats = np.cumsum(events * demand / demand.sum(), axis=1)
    return budgets


def _turns(visitors: Ints) -> Ints:
    """For sorted shoppers: 0 for a shopper's first entry, 1 for the second, and so on."""
    starts = np.flatnonzero(np.diff(visitors, prepend=-1))
    return np.arange(len(visitors)) - np.repeat(starts, np.diff(np.append(starts, len(visitors))))


def _concatenate(parts: Sequence[Behaviour]) -> Behaviour:
    columns = ("shopper", "item", "type_code", "occurred_at", "block", "visit")
    empty = np.zeros(0, np.int64)
    return Behaviour(*(np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in columns))


def _in_time_order(parts: Sequence[Behaviour]) -> Behaviour:
    whole = _concatenate(parts)
    order = np.argsort(whole.occurred_at, kind="stable")
    columns = ("shopper", "item", "type_code", "occurred_at", "block", "visit")
    return Behaviour(*(getattr(whole, name)[order] for name in columns))
