"""Mergeable aggregations: what feature state is made of, and the arithmetic of folding, merging and reading it.

Decayed sums follow the forward-decay form of Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay" (ICDE 2009),
with the reference time moved to the newest fold: the value at t is sum(amount * 2 ** (-(t - at) / half_life)).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import exp2, log
from operator import itemgetter
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
    """The newest `k` events as (effective time, tie-breaker, item id hash), in this order: see `entries`."""

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
_MOST_KINDS: Final = 8


def amounts_of(event: Event) -> tuple[float, ...]:
    """What one event adds, 0.0 for nothing first, then by kind in the order of `Amount`."""
    price = event.price_cents
    if price is None:
        return _UNPRICED
    log_price = log(price) if price > 1 else 0.0
    return (0.0, 1.0, float(price * (event.quantity or 1)), 1.0, log_price, log_price * log_price)


_UNPRICED: Final = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Intake:
    """What events of one type change; slots are places within a `Slots`."""

    pick_amounts: Callable[[Sequence[float]], tuple[float, ...]]
    """From what `amounts_of` says to what each decayed sum takes."""
    counted: tuple[int, ...]
    dated: tuple[int, ...]
    listed: tuple[tuple[int, int], ...]
    """(slot, k)."""


class Spread:
    """From columns of some slots to columns of more: every value to its place, what is new to the value of nothing."""

    def __init__(self, held: Slots, wanted: Slots) -> None:
        def places(held: Sequence[int], wanted: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
            return _picker([held.index(slot) if slot in held else len(held) for slot in wanted])

        self._decayed = places(held.decayed, wanted.decayed)
        self._counts = places(held.counts, wanted.counts)
        self._earliest = places(held.earliest, wanted.earliest)
        self._lists = places(held.lists, wanted.lists)

    def __call__(
        self, sums: Sequence[float], counts: Sequence[int], earliest: Sequence[int], lists: Sequence[bytes]
    ) -> tuple[list[float], list[int], list[int], list[bytes]]:
        """The four columns of a state, spread."""
        return (
            list(self._decayed((*sums, 0.0))),
            list(self._counts((*counts, 0))),
            list(self._earliest((*earliest, NEVER))),
            list(self._lists((*lists, b""))),
        )


class Slots:
    """The slots that events of some types change: all that a state of such events holds and stores.

    Who never bought anything has no purchase slots, in memory or in bytes. Folding is arithmetic on plain floats: a few
    dozen sums are too few for an array to pay.
    """

    def __init__(self, layout: Layout, seen: int) -> None:
        """`seen` are the types as bits, by their place in `layout.kinds`."""
        kinds = {kind for place, kind in enumerate(layout.kinds) if seen >> place & 1}
        self.seen = seen
        self.decayed = _taken(layout.decayed, kinds)
        self.counts = _taken(layout.counts, kinds)
        self.earliest = _taken(layout.earliest, kinds)
        self.lists = _taken(layout.lists, kinds)
        sizes = len(self.decayed), len(self.counts), len(self.earliest), len(self.lists)
        self.record = struct.Struct("<Bqq{}d{}q{}q{}H".format(*sizes))
        """seen, newest_at, last_enqueued_at, decayed sums, counts, earliest instants, lengths of lists."""
        self.places = (3 + sizes[0], 3 + sizes[0] + sizes[1], 3 + sizes[0] + sizes[1] + sizes[2])
        """Where counts, earliest instants and lengths of lists begin in it."""
        half_lives = [layout.decayed[slot].half_life_ms for slot in self.decayed]
        self._half_lives = sorted(set(half_lives))
        self._each_sum = _picker([self._half_lives.index(one) for one in half_lives])
        self._spreads: dict[int, Spread] = {}
        self.intakes = {
            kind: self._intake_of(layout, kind) for kind in EventType if kind in kinds or kind not in layout.kinds
        }
        """By event type; a type that is missing here needs more slots."""

    def _intake_of(self, layout: Layout, kind: EventType) -> Intake:
        def taking(aggregations: Sequence[Aggregation], slots: Sequence[int]) -> tuple[int, ...]:
            return tuple(place for place, slot in enumerate(slots) if kind in aggregations[slot].events)

        place_of = {amount: place for place, amount in enumerate(Amount, 1)}
        sums = [layout.decayed[slot] for slot in self.decayed]
        return Intake(
            pick_amounts=_picker([place_of[one.amount] if kind in one.events else 0 for one in sums]),
            counted=taking(layout.counts, self.counts),
            dated=taking(layout.earliest, self.earliest),
            listed=tuple((place, layout.lists[self.lists[place]].k) for place in taking(layout.lists, self.lists)),
        )

    def spread(self, held: Slots) -> Spread:
        """How columns of the slots `held`, all of which are here too, become columns of these."""
        found = self._spreads.get(held.seen)
        if found is None:
            found = self._spreads[held.seen] = Spread(held, self)
        return found

    def _factors(self, elapsed_ms: int) -> tuple[float, ...]:
        return self._each_sum([exp2(-elapsed_ms / half_life) for half_life in self._half_lives])

    def decay(self, sums: Sequence[float], elapsed_ms: int) -> list[float]:
        """The decayed sums after `elapsed_ms` (>= 0)."""
        return [held * factor for held, factor in zip(sums, self._factors(elapsed_ms), strict=True)]

    def fold(self, sums: Sequence[float], newest_at: int, event: Event, at: int) -> list[float]:
        """The decayed sums at max(newest_at, at): `sums` standing at `newest_at`, and an event of effective time `at`.

        The one place where decayed values change. Before the first event all sums are zero and `newest_at` is as far
        back as an integer goes.
        """
        amounts = self.intakes[event.event_type].pick_amounts(amounts_of(event))
        each = zip(sums, amounts, self._factors(abs(at - newest_at)), strict=True)
        if at < newest_at:
            return [held + amount * factor for held, amount, factor in each]
        return [held * factor + amount for held, amount, factor in each]


def _taken(aggregations: Sequence[Aggregation], kinds: Iterable[EventType]) -> list[int]:
    return [slot for slot, one in enumerate(aggregations) if not set(one.events).isdisjoint(kinds)]


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function from a sequence to the tuple of its values at these places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[place] for place in places)


class Layout:
    """The slots of one entity's state, in an order that depends only on the aggregations themselves."""

    def __init__(self, aggregations: Iterable[Aggregation]) -> None:
        """Sort and index the distinct aggregations. Raises ValueError when they take more than 8 event types."""
        distinct = sorted(set(aggregations), key=repr)
        self.decayed = tuple(one for one in distinct if isinstance(one, Decayed))
        self.counts = tuple(one for one in distinct if isinstance(one, Count))
        self.earliest = tuple(one for one in distinct if isinstance(one, Earliest))
        self.lists = tuple(one for one in distinct if isinstance(one, LastK))
        kinds: tuple[tuple[Aggregation, ...], ...] = (self.decayed, self.counts, self.earliest, self.lists)
        self.slot = {one: slot for kind in kinds for slot, one in enumerate(kind)}
        self.half_lives_ms: Floats = np.array([one.half_life_ms for one in self.decayed], dtype=np.float64)
        self.kinds = tuple(sorted({event for one in distinct for event in one.events}))
        """The event types that change anything."""
        if len(self.kinds) > _MOST_KINDS:
            raise ValueError(f"a state tells {_MOST_KINDS} event types apart, this layout takes {len(self.kinds)}")
        self.bit = {kind: 1 << self.kinds.index(kind) if kind in self.kinds else 0 for kind in EventType}
        self._slots: dict[int, Slots] = {}
        self.whole = self.slots((1 << len(self.kinds)) - 1)

    def slots(self, seen: int) -> Slots:
        """The slots that events of these types (bits) change. Raises ValueError for a bit that no type has."""
        found = self._slots.get(seen)
        if found is None:
            if not 0 <= seen < 1 << len(self.kinds):
                raise ValueError(f"{seen:#x} names event types that this layout does not take")
            found = self._slots[seen] = Slots(self, seen)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels to other processes as its description."""
        return Layout.from_description, (self.describe(),)

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
