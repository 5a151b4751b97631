"""Mergeable aggregations: what feature state is made of, and the arithmetic of folding, merging and reading it.

Decayed sums follow the forward-decay form of Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay" (ICDE 2009),
with the reference time moved to the newest fold: the value at t is sum(amount * 2 ** (-(t - at) / half_life)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.events import Event, EventType

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

NEVER: Final = np.iinfo(np.int64).max
"""The value of `Earliest` before the first event."""

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
EXPIRES_AFTER_MS: Final = 400 * DAY_MS
"""Behaviour of an entity idle for longer than this, judged on enqueued_at, is forgotten."""


class Amount(StrEnum):
    """What a decayed sum adds for one event."""

    ONE = "one"
    CENTS = "cents"
    PRICED = "priced"
    LOG_PRICE = "log_price"
    LOG_PRICE_SQUARED = "log_price_squared"


@dataclass(frozen=True, slots=True, order=True)
class Decayed:
    """Exponentially decayed sum over some event types; float64."""

    events: tuple[EventType, ...]
    half_life_ms: int
    amount: Amount = Amount.ONE


@dataclass(frozen=True, slots=True, order=True)
class Count:
    """Number of events ever; int64."""

    events: tuple[EventType, ...]


@dataclass(frozen=True, slots=True, order=True)
class Earliest:
    """The smallest effective time, epoch ms; `NEVER` before the first."""

    events: tuple[EventType, ...]


@dataclass(frozen=True, slots=True, order=True)
class LastK:
    """The newest `k` events as (effective time, event id hash, item id hash), ordered by the first two."""

    events: tuple[EventType, ...]
    k: int


Aggregation = Decayed | Count | Earliest | LastK

Entry = tuple[int, int, int]
"""(effective_at epoch ms, event id hash, item id hash)."""

ENTRY_DTYPE: Final = np.dtype([("at", "<i8"), ("event", "<u8"), ("item", "<u8")])


class Layout:
    """The slots of one entity's state, in an order that depends only on the aggregations themselves."""

    def __init__(self, aggregations: Iterable[Aggregation]) -> None:
        """Sort and index the distinct aggregations."""
        distinct = sorted(set(aggregations), key=repr)
        self.decayed = tuple(one for one in distinct if isinstance(one, Decayed))
        self.counts = tuple(one for one in distinct if isinstance(one, Count))
        self.earliest = tuple(one for one in distinct if isinstance(one, Earliest))
        self.lists = tuple(one for one in distinct if isinstance(one, LastK))
        kinds: tuple[tuple[Aggregation, ...], ...] = (self.decayed, self.counts, self.earliest, self.lists)
        self.slot = {one: slot for kind in kinds for slot, one in enumerate(kind)}
        self.half_lives_ms: Floats = np.array([one.half_life_ms for one in self.decayed], dtype=np.float64)
        self._weights = {kind: self._weights_of(kind) for kind in EventType}
        self._counted: dict[EventType, Ints] = {
            kind: np.array([kind in one.events for one in self.counts], dtype=np.int64) for kind in EventType
        }
        self._dated = {
            kind: [slot for slot, one in enumerate(self.earliest) if kind in one.events] for kind in EventType
        }
        self._listed = {kind: [slot for slot, one in enumerate(self.lists) if kind in one.events] for kind in EventType}

    def _weights_of(self, kind: EventType) -> Floats:
        """float64[len(Amount), D]: which amounts each decayed slot takes from an event of this type."""
        weights = np.zeros((len(Amount), len(self.decayed)))
        for slot, one in enumerate(self.decayed):
            if kind in one.events:
                weights[list(Amount).index(one.amount), slot] = 1.0
        return weights

    def amounts(self, event: Event) -> Floats:
        """float64[D]: what this event adds to each decayed slot."""
        price = event.price_cents
        log_price = math.log(max(price, 1)) if price is not None else 0.0
        values = (
            1.0,
            float((price or 0) * (event.quantity or 1)),
            float(price is not None),
            log_price,
            log_price * log_price,
        )
        return np.asarray(values) @ self._weights[event.event_type]

    def counted(self, kind: EventType) -> Ints:
        """int64[C]: one where a count takes events of this type."""
        return self._counted[kind]

    def dated(self, kind: EventType) -> list[int]:
        """Slots of `Earliest` that take events of this type."""
        return self._dated[kind]

    def listed(self, kind: EventType) -> list[int]:
        """Slots of `LastK` that take events of this type."""
        return self._listed[kind]

    def __repr__(self) -> str:
        """All slots in order: what the state version hashes."""
        return repr((self.decayed, self.counts, self.earliest, self.lists))


def decay(values: Floats, elapsed_ms: Floats | float, half_lives_ms: Floats) -> Floats:
    """`values` (float64[..., D]) after `elapsed_ms` (scalar or [..., 1], >= 0)."""
    return np.asarray(values * np.exp2(-elapsed_ms / half_lives_ms))


def add_entry(entries: list[Entry], entry: Entry, k: int) -> None:
    """Insert into an ascending list and keep its `k` greatest; equal entries are kept once."""
    if not entries or entry > entries[-1]:
        entries.append(entry)
    elif entry not in entries:
        entries.append(entry)
        entries.sort()
    if len(entries) > k:
        del entries[: len(entries) - k]


def merge_entries(left: list[Entry], right: list[Entry], k: int) -> list[Entry]:
    """The `k` greatest of the union, ascending."""
    if not right:
        return list(left)
    if not left:
        return list(right)
    return sorted({*left, *right})[-k:]
