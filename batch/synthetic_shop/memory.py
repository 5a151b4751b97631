"""What a block of shoppers carries from visit to visit: unfinished business, purchases, the last category, momentum."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from batch.synthetic_shop.catalog import Catalog, Floats, Ints

_PENDING = 12
_BOUGHT = 32
_SEEN = 24
_LONG_AGO = -10_000
_MOMENTUM_KEPT = 0.72
REBUY_AFTER_DAYS = 31


class Business(IntEnum):
    """Why a shopper may come back to an item; FRESH is a need that nothing earlier explains."""

    VIEWED = 0
    CARTED = 1
    PARTNER = 2
    REFILL = 3
    FRESH = 4


_HALF_LIFE_DAYS = np.array([3.0, 5.0, 5.0, 8.0])


@dataclass(slots=True)
class Memory:
    """Mutable state of one block; rows are shoppers. Empty slots hold item -1."""

    item: npt.NDArray[np.int32]
    strength: npt.NDArray[np.float32]
    due_day: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int8]
    bought: npt.NDArray[np.int32]
    bought_day: npt.NDArray[np.int32]
    bought_count: npt.NDArray[np.int32]
    seen: npt.NDArray[np.int32]
    seen_count: npt.NDArray[np.int32]
    last_leaf: npt.NDArray[np.int32]
    momentum: npt.NDArray[np.float32]
    events: int = 0

    @classmethod
    def empty(cls, shoppers: int) -> Memory:
        """Nobody remembers anything."""
        return cls(
            item=np.full((shoppers, _PENDING), -1, np.int32),
            strength=np.zeros((shoppers, _PENDING), np.float32),
            due_day=np.zeros((shoppers, _PENDING), np.int32),
            kind=np.zeros((shoppers, _PENDING), np.int8),
            bought=np.full((shoppers, _BOUGHT), -1, np.int32),
            bought_day=np.full((shoppers, _BOUGHT), _LONG_AGO, np.int32),
            bought_count=np.zeros(shoppers, np.int32),
            seen=np.full((shoppers, _SEEN), -1, np.int32),
            seen_count=np.zeros(shoppers, np.int32),
            last_leaf=np.full(shoppers, -1, np.int32),
            momentum=np.zeros(shoppers, np.float32),
        )

    def new_day(self) -> None:
        """Momentum fades overnight."""
        self.momentum *= _MOMENTUM_KEPT

    def pull(self, shopper: Ints, day: int) -> Floats:
        """Weight of each unfinished business of the given shoppers today, (shoppers, slots)."""
        return np.where(self.due_day[shopper] <= day, self._value(shopper, day), 0.0)

    def _value(self, shopper: Ints, day: int) -> Floats:
        """As `pull`, but what is not due yet counts in full."""
        age = np.maximum(day - self.due_day[shopper], 0)
        faded: Floats = self.strength[shopper] * 0.5 ** (age / _HALF_LIFE_DAYS[self.kind[shopper]])
        return faded

    def may_buy(self, shopper: Ints, item: Ints, day: int, catalog: Catalog) -> npt.NDArray[np.bool_]:
        """Not bought before, or used up by now."""
        since = np.where(self.bought[shopper] == item[:, None], day - self.bought_day[shopper], -_LONG_AGO).min(1)
        return since >= np.where(catalog.consumable[item], REBUY_AFTER_DAYS, -_LONG_AGO)

    def knows(self, shopper: Ints, item: Ints) -> npt.NDArray[np.bool_]:
        """Whether each item (rows, choices) is among the last that the row's shopper looked at."""
        known: npt.NDArray[np.bool_] = (self.seen[shopper][:, None, :] == item[:, :, None]).any(2)
        return known

    def see(self, shopper: Ints, item: Ints) -> None:
        """Note looks, grouped by shopper; only the last of each are kept."""
        starts = np.flatnonzero(np.diff(shopper, prepend=-1) != 0)
        sizes = np.diff(np.append(starts, len(shopper)))
        turn = np.arange(len(shopper)) - np.repeat(starts, sizes)
        kept = turn >= np.repeat(sizes, sizes) - _SEEN
        self.seen[shopper[kept], (self.seen_count[shopper[kept]] + turn[kept]) % _SEEN] = item[kept]
        self.seen_count[shopper[starts]] += sizes.astype(np.int32)

    def remember(self, shopper: Ints, item: Ints, *, strength: Floats, due_day: Ints, kind: Ints, day: int) -> None:
        """Add unfinished business in the given order; today's weakest slot goes, an item stands in one slot only."""
        for rows in _in_turns(shopper):
            who, what = shopper[rows], item[rows]
            same = self.item[who] == what[:, None]
            slot = np.where(same.any(1), same.argmax(1), self._value(who, day).argmin(1))
            self.item[who, slot] = what
            self.strength[who, slot] = strength[rows]
            self.due_day[who, slot] = due_day[rows]
            self.kind[who, slot] = kind[rows]

    def buy(self, shopper: Ints, item: Ints, day: int, catalog: Catalog) -> None:
        """Note purchases, and drop what they settle: the item itself and, unless used up, its substitutes."""
        for rows in _in_turns(shopper):
            who, what = shopper[rows], item[rows]
            slot = self.bought_count[who] % _BOUGHT
            self.bought[who, slot] = what
            self.bought_day[who, slot] = day
            self.bought_count[who] += 1
            held = self.item[who]
            settled = (
                (held >= 0)
                & (catalog.family[held] == catalog.family[what][:, None])
                & (self.kind[who] != Business.REFILL)
            )
            settled |= held == what[:, None]
            self.item[who] = np.where(settled, -1, held)
            self.strength[who] = np.where(settled, 0.0, self.strength[who])


def _in_turns(shopper: Ints) -> list[Ints]:
    """Row numbers split so that no shopper stands twice in one part, earlier rows in earlier parts."""
    if len(shopper) == 0:
        return []
    order = np.argsort(shopper, kind="stable")
    starts = np.flatnonzero(np.diff(shopper[order], prepend=-1))
    turn = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return [order[turn == number] for number in range(int(turn.max()) + 1)]
