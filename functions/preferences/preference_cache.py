"""What users asked for, as this worker last read or wrote it: for the time when the state cannot be read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from shared.adapters.redis_overlay import Order
from shared.events import Preferences

MOST_USERS: Final = 50_000
MOST_NAMES: Final = 500_000
"""Of all users together: ids, categories and brands, at about 100 bytes each."""
TRUSTED_S: Final = 60.0
"""So long after it was last heard what others wrote, what is held counts as what a user wants now."""
MOST_CHANGED: Final = 10_000
HELD_S: Final = 900.0
"""So long it is obeyed at all, be it with the caveat that it may be out of date; then it is forgotten."""


class Wishes(NamedTuple):
    """What a user asked for; None: nothing, or nothing known. `unavailable`: it is not certain that this is all."""

    preferences: Preferences | None
    unavailable: bool = False


@dataclass(frozen=True, slots=True)
class _Held:
    preferences: Preferences | None
    order: Order
    at_s: float
    turn: int

    @property
    def names(self) -> int:
        wanted = self.preferences
        if wanted is None:
            return 0
        lists = (wanted.hidden_items, wanted.hidden_categories, wanted.hidden_brands, wanted.favourite_categories)
        return sum(map(len, lists))


class PreferenceCache:
    """Users by keyed hash. Least recently used goes first, beyond 50,000 users or 500,000 names. Safe for threads."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds` is a monotonic clock."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        self._names = 0
        self._turn = 0
        self._heard_s = float("-inf")
        self._changed: OrderedDict[bytes, int] = OrderedDict()
        self._flooded = 0

    def begin_read(self) -> int:
        """To be asked before the state is read; `learn` wants it, since a write or another read may overtake this."""
        with self._lock:
            self._turn += 1
            return self._turn

    def learn(self, user: bytes, preferences: Preferences | None, order: Order, begun: int) -> None:
        """Keep what was read, unless something newer came since the read began."""
        with self._lock:
            held = self._held.get(user)
            newer = max(0 if held is None else held.turn, self._changed.get(user, 0), self._flooded)
            if newer <= begun:
                self._put(user, preferences, order, begun)

    def write(self, user: bytes, preferences: Preferences | None, order: Order) -> None:
        """Keep what was just acknowledged, unless what is held is newer."""
        with self._lock:
            held = self._held.get(user)
            if held is None or held.order < order:
                self._turn += 1
                self._put(user, preferences, order, self._turn)

    def hear(self, orders: Mapping[bytes, Order] | None, asked_s: float) -> None:
        """What any worker wrote since the last time, asked for at `asked_s`: what is held and older is forgotten.

        None: it cannot be told what was written, so everything is.
        """
        with self._lock:
            self._heard_s = asked_s
            self._turn += 1
            if orders is None:
                self._flooded = self._turn
                self._held.clear()
                self._names = 0
                return
            for user, order in orders.items():
                held = self._held.get(user)
                if held is None or held.order < order:
                    self._drop(user)
                    self._changed[user] = self._turn  # a read under way may have seen her as she was before
                    self._changed.move_to_end(user)
            while len(self._changed) > MOST_CHANGED:
                self._changed.popitem(last=False)

    def holds(self, user: bytes) -> bool:
        """Is anything held of her, be it that she has no preferences?"""
        return user in self._held

    def wishes(self, user: bytes) -> Wishes:
        """What is held of her, for who cannot read the state now."""
        with self._lock:
            held = self._held.get(user)
            if held is None:
                return Wishes(None, unavailable=True)
            now_s = self._seconds()
            if now_s - held.at_s > HELD_S:
                self._drop(user)
                return Wishes(None, unavailable=True)
            self._held.move_to_end(user)
            return Wishes(held.preferences, unavailable=now_s - max(held.at_s, self._heard_s) > TRUSTED_S)

    def drop_old(self) -> None:
        """Forget what has been held for too long; to be called now and then."""
        with self._lock:
            now_s = self._seconds()
            for user in [user for user, held in self._held.items() if now_s - held.at_s > HELD_S]:
                self._drop(user)

    def _put(self, user: bytes, preferences: Preferences | None, order: Order, turn: int) -> None:
        self._drop(user)
        held = self._held[user] = _Held(preferences, order, self._seconds(), turn)
        self._names += held.names
        while len(self._held) > MOST_USERS or self._names > MOST_NAMES:
            self._drop(next(iter(self._held)))

    def _drop(self, user: bytes) -> None:
        held = self._held.pop(user, None)
        if held is not None:
            self._names -= held.names
