"""What users asked for, as this worker last read or wrote it: for the time when the state cannot be read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from shared.events import Preferences

MOST_USERS: Final = 50_000
MOST_NAMES: Final = 500_000
"""Of all users together: ids, categories and brands, at about 100 bytes each."""
TRUSTED_S: Final = 60.0
"""So long what is held counts as what she wants now; another worker may have been told otherwise since."""
HELD_S: Final = 900.0
"""So long it is obeyed, with the caveat that it may be out of date; then it is forgotten."""


Order = tuple[int, int]
"""(effective time in epoch ms, event hash) of preferences: the greatest wins."""

NEVER_SET: Final[Order] = (-(1 << 63), 0)


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
    """Least recently used goes first, beyond 50,000 users or 500,000 names. Safe to use from many threads."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds` is a monotonic clock."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._names = 0
        self._turn = 0

    def begin_read(self) -> int:
        """To be asked before the state is read; `learn` wants it, since a write or another read may overtake this."""
        with self._lock:
            self._turn += 1
            return self._turn

    def learn(self, user_id: str, preferences: Preferences | None, order: Order, begun: int) -> None:
        """Keep what was read, unless something newer came since the read began."""
        with self._lock:
            held = self._held.get(user_id)
            if held is None or held.turn <= begun:
                self._put(user_id, preferences, order, begun)

    def write(self, user_id: str, preferences: Preferences | None, order: Order) -> None:
        """Keep what was just acknowledged, unless what is held is newer."""
        with self._lock:
            held = self._held.get(user_id)
            if held is None or held.order < order:
                self._turn += 1
                self._put(user_id, preferences, order, self._turn)

    def holds(self, user_id: str) -> bool:
        """Is anything held of her, be it that she has no preferences?"""
        return user_id in self._held

    def forget(self, user_id: str) -> None:
        """As if she had never been read."""
        with self._lock:
            self._drop(user_id)

    def wishes(self, user_id: str) -> Wishes:
        """What is held of her, for who cannot read the state now."""
        with self._lock:
            held = self._held.get(user_id)
            if held is None:
                return Wishes(None, unavailable=True)
            age_s = self._seconds() - held.at_s
            if age_s > HELD_S:
                self._drop(user_id)
                return Wishes(None, unavailable=True)
            self._held.move_to_end(user_id)
            return Wishes(held.preferences, unavailable=age_s > TRUSTED_S)

    def drop_old(self) -> None:
        """Forget what has been held for too long; to be called now and then."""
        with self._lock:
            now_s = self._seconds()
            for user_id in [user_id for user_id, held in self._held.items() if now_s - held.at_s > HELD_S]:
                self._drop(user_id)

    def _put(self, user_id: str, preferences: Preferences | None, order: Order, turn: int) -> None:
        self._drop(user_id)
        held = self._held[user_id] = _Held(preferences, order, self._seconds(), turn)
        self._names += held.names
        while len(self._held) > MOST_USERS or self._names > MOST_NAMES:
            self._drop(next(iter(self._held)))

    def _drop(self, user_id: str) -> None:
        held = self._held.pop(user_id, None)
        if held is not None:
            self._names -= held.names
