"""Mergeable aggregations: what feature state is made of, and the arithmetic of folding, merging and reading it.

Decayed sums follow the forward-decay form of Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay" (ICDE 2009),
with the reference time moved to the newest fold: the value at t is sum(amount * 2 ** (-(t - at) / half_life)).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import CorruptRecord
from shared.events import Event, EventType

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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

_KINDS: Final[Mapping[str, type[Aggregation]]] = {
    "decayed": Decayed,
    "count": Count,
    "earliest": Earliest,
    "last_k": LastK,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}

Entry = tuple[int, int, int]
"""(effective_at epoch ms, event id hash, item id hash)."""


@dataclass(frozen=True, slots=True)
class Intake:
    """What events of one type change: read-only amounts (float64[D]) without and with a price, and slots by kind.

    `by_price` are the decayed slots whose amount depends on the price, `listed` the lists with their `k`.
    """

    plain: Floats
    priced: Floats
    by_price: tuple[tuple[int, Amount], ...]
    counted: Ints
    dated: tuple[int, ...]
    listed: tuple[tuple[int, int], ...]

    def amounts(self, event: Event) -> Floats:
        """float64[D], not to be changed: what this event adds to each decayed slot."""
        price = event.price_cents
        if price is None:
            return self.plain
        if not self.by_price:
            return self.priced
        amounts = self.priced.copy()
        log_price = math.log(max(price, 1))
        for slot, amount in self.by_price:
            if amount is Amount.LOG_PRICE:
                amounts[slot] = log_price
            elif amount is Amount.LOG_PRICE_SQUARED:
                amounts[slot] = log_price * log_price
            else:
                amounts[slot] = float(price * (event.quantity or 1))
        return amounts


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
        self._intakes = {kind: self._intake_of(kind) for kind in EventType}

    def _intake_of(self, kind: EventType) -> Intake:
        taking = [(slot, one.amount) for slot, one in enumerate(self.decayed) if kind in one.events]
        plain, priced = np.zeros(len(self.decayed)), np.zeros(len(self.decayed))
        for slot, amount in taking:
            plain[slot] = amount is Amount.ONE
            priced[slot] = amount in {Amount.ONE, Amount.PRICED}
        counted = np.array([kind in one.events for one in self.counts], dtype=np.int64)
        for shared in (plain, priced, counted):
            shared.flags.writeable = False
        return Intake(
            plain=plain,
            priced=priced,
            by_price=tuple(one for one in taking if one[1] not in {Amount.ONE, Amount.PRICED}),
            counted=counted,
            dated=tuple(slot for slot, one in enumerate(self.earliest) if kind in one.events),
            listed=tuple((slot, one.k) for slot, one in enumerate(self.lists) if kind in one.events),
        )

    def intake(self, kind: EventType) -> Intake:
        """What an event of this type changes."""
        return self._intakes[kind]

    def fold_decayed(self, values: Floats, newest_at: int | None, event: Event, at: int) -> Floats:
        """float64[D] at max(newest_at, at): `values` (standing at `newest_at`) with an event of effective time `at`.

        `newest_at` is None before the first event. The one place where decayed values change.
        """
        amounts = self._intakes[event.event_type].amounts(event)
        if newest_at is None or at == newest_at:
            return values + amounts
        if at > newest_at:
            return decay(values, float(at - newest_at), self.half_lives_ms) + amounts
        return values + decay(amounts, float(newest_at - at), self.half_lives_ms)

    def describe(self) -> list[dict[str, Any]]:
        """The slots as JSON values, in order: what a release keeps so that other code can fold its state version."""
        return [_described(one) for kind in (self.decayed, self.counts, self.earliest, self.lists) for one in kind]

    @classmethod
    def from_description(cls, described: Sequence[Mapping[str, Any]]) -> Layout:
        """The inverse of `describe`. Raises CorruptRecord for what is no aggregation that this code knows."""
        return cls([_aggregation(one) for one in described])

    def __repr__(self) -> str:
        """All slots in order: what the state version hashes."""
        return repr((self.decayed, self.counts, self.earliest, self.lists))


def _described(aggregation: Aggregation) -> dict[str, Any]:
    return {"kind": _NAMES[type(aggregation)], **msgspec.json.decode(msgspec.json.encode(aggregation))}


def _aggregation(described: Mapping[str, Any]) -> Aggregation:
    try:
        aggregation = msgspec.convert(described, _KINDS[described["kind"]])
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise CorruptRecord(f"{described!r} is no aggregation this code knows ({error!r})") from error
    positive = all(getattr(aggregation, name, 1) > 0 for name in ("half_life_ms", "k"))
    # Compared, because a field this code does not know would change what the aggregation means.
    if not positive or described != _described(aggregation):
        raise CorruptRecord(f"{described!r} is no aggregation this code knows: it would be read as {aggregation!r}")
    return aggregation


def decay(values: Floats, elapsed_ms: Floats | float, half_lives_ms: Floats) -> Floats:
    """`values` (float64[..., D]) after `elapsed_ms` (scalar or [..., 1], >= 0)."""
    return np.asarray(values * np.exp2(-elapsed_ms / half_lives_ms))


def add_entry(entries: list[Entry], entry: Entry, k: int) -> None:
    """Insert into an ascending list and keep its `k` greatest; equal entries are kept once."""
    if not entries or entry > entries[-1]:
        entries.append(entry)
    else:
        place = bisect_left(entries, entry)
        if entries[place] != entry:
            entries.insert(place, entry)
    if len(entries) > k:
        del entries[: len(entries) - k]


def merge_entries(left: list[Entry], right: list[Entry], k: int) -> list[Entry]:
    """The `k` greatest of the union, ascending."""
    if not right:
        return list(left)
    if not left:
        return list(right)
    return sorted({*left, *right})[-k:]
