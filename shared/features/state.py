"""The state of one entity: slots that fold events, merge with those of other shards and become bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.events import Event, effective_at, id_hash
from shared.features.aggregations import EXPIRES_AFTER_MS, NEVER, Floats, Ints, Layout, Slots, decay
from shared.features.entries import (
    ENTRY_BYTES,
    Entry,
    add_entry,
    entry_columns,
    merge_entries,
    pack_entry,
    unpack_entries,
)

FORMAT: Final = 3
"""Of all bytes that user shards and item counters become. It is part of STATE_VERSION: raise it with every change."""

EMPTY_AT: Final = -(1 << 63)
"""newest_at and last_enqueued_at of a state that has folded nothing."""


@dataclass(slots=True)
class EntityState:
    """What is known of one entity. Decayed sums stand at `newest_at`; all instants are epoch ms.

    The four columns hold the slots of the event types seen so far; `decayed`, `counts`, `earliest` and `lists` show the
    whole layout.
    """

    layout: Layout
    slots: Slots
    newest_at: int
    last_enqueued_at: int
    sums: Sequence[float]
    tallies: list[int]
    firsts: list[int]
    packed: list[bytes]

    @classmethod
    def empty(cls, layout: Layout, slots: Slots | None = None) -> EntityState:
        """Nothing folded yet; `slots` are those to hold from the start, by default none."""
        held = slots or layout.slots(0)
        return cls(
            layout,
            held,
            EMPTY_AT,
            EMPTY_AT,
            [0.0] * len(held.decayed),
            [0] * len(held.counts),
            [NEVER] * len(held.earliest),
            [b""] * len(held.lists),
        )

    def add(self, event: Event, enqueued_at: int) -> None:
        """Fold one event; where it stands in the log does not matter."""
        kind = event.event_type
        intake = self.slots.intakes.get(kind)
        if intake is None:
            self._widen(self.layout.slots(self.slots.seen | self.layout.bit[kind]))
            intake = self.slots.intakes[kind]
        at = effective_at(event.occurred_at_ms, enqueued_at)
        self.sums = self.slots.fold(self.sums, self.newest_at, event, at)
        self.newest_at = max(self.newest_at, at)
        self.last_enqueued_at = max(self.last_enqueued_at, enqueued_at)
        for slot in intake.counted:
            self.tallies[slot] += 1
        for slot in intake.dated:
            self.firsts[slot] = min(self.firsts[slot], at)
        if intake.listed and event.item_id is not None:
            entry = pack_entry(at, event.event_id, id_hash(event.item_id))
            for slot, k in intake.listed:
                self.packed[slot] = add_entry(self.packed[slot], entry, k)

    def _widen(self, slots: Slots) -> None:
        """Hold these slots, which include those held."""
        if slots is not self.slots:
            spread = slots.spread(self.slots)
            self.sums, self.tallies, self.firsts, self.packed = spread(
                self.sums, self.tallies, self.firsts, self.packed
            )
            self.slots = slots

    def expired(self, now_at: int) -> bool:
        """Has nothing been enqueued for this entity for so long that its behaviour no longer counts?"""
        return self.last_enqueued_at != EMPTY_AT and now_at - self.last_enqueued_at > EXPIRES_AFTER_MS

    def merge(self, other: EntityState) -> EntityState:
        """The state of all events that either holds; neither is changed."""
        slots = self.layout.slots(self.slots.seen | other.slots.seen)
        newest_at = max(self.newest_at, other.newest_at)
        mine, theirs = self._aligned(slots, newest_at), other._aligned(slots, newest_at)
        return EntityState(
            self.layout,
            slots,
            newest_at,
            max(self.last_enqueued_at, other.last_enqueued_at),
            [one + two for one, two in zip(mine.sums, theirs.sums, strict=True)],
            [one + two for one, two in zip(mine.tallies, theirs.tallies, strict=True)],
            [min(one, two) for one, two in zip(mine.firsts, theirs.firsts, strict=True)],
            [
                merge_entries(one, two, self.layout.lists[slot].k)
                for slot, one, two in zip(slots.lists, mine.packed, theirs.packed, strict=True)
            ],
        )

    def _aligned(self, slots: Slots, newest_at: int) -> EntityState:
        """A copy that holds these slots and stands at `newest_at`."""
        copy = EntityState(
            self.layout,
            self.slots,
            newest_at,
            self.last_enqueued_at,
            self.slots.decay(self.sums, newest_at - self.newest_at),
            self.tallies,
            self.firsts,
            self.packed,
        )
        copy._widen(slots)
        return copy

    @property
    def decayed(self) -> Floats:
        """float64[D] at `newest_at`."""
        values = np.zeros(len(self.layout.decayed))
        values[self.slots.decayed] = self.sums
        return values

    @property
    def counts(self) -> Ints:
        """int64[C]."""
        values = np.zeros(len(self.layout.counts), dtype=np.int64)
        values[self.slots.counts] = self.tallies
        return values

    @property
    def earliest(self) -> Ints:
        """int64[E], epoch ms; `NEVER` where there was no such event."""
        values = np.full(len(self.layout.earliest), NEVER, dtype=np.int64)
        values[self.slots.earliest] = self.firsts
        return values

    @property
    def lists(self) -> list[list[Entry]]:
        """The entries of each list, ascending."""
        held = dict(zip(self.slots.lists, self.packed, strict=True))
        return [unpack_entries(held.get(slot, b"")) for slot in range(len(self.layout.lists))]

    def list_columns(self, slot: int) -> tuple[list[int], NDArray[np.int64]]:
        """Item hashes and effective times (int64[n], epoch ms) of one list, ascending in time."""
        held = self.slots.lists
        return entry_columns(self.packed[held.index(slot)] if slot in held else b"")

    def decayed_at(self, as_of: int) -> Floats:
        """float64[D] at `as_of`, never before the newest folded time."""
        if self.newest_at == EMPTY_AT:
            return self.decayed
        return decay(self.decayed, max(as_of - self.newest_at, 0), self.layout.half_lives_ms)

    def encode(self) -> bytes:
        """`Slots.record`, then the lists' entries: equal states are equal bytes."""
        record = self.slots.record.pack(
            self.slots.seen,
            self.newest_at,
            self.last_enqueued_at,
            *self.sums,
            *self.tallies,
            *self.firsts,
            *[len(packed) // ENTRY_BYTES for packed in self.packed],
        )
        return b"".join((record, *self.packed))

    @classmethod
    def decode(cls, layout: Layout, data: bytes, start: int = 0) -> EntityState:
        """The inverse of `encode` under the same layout, of the bytes from `start` on.

        Raises IndexError, ValueError or struct.error for other bytes.
        """
        slots = layout.slots(data[start])
        values = slots.record.unpack_from(data, start)
        counts_at, earliest_at, lengths_at = slots.places
        packed, position = [], start + slots.record.size
        for length in values[lengths_at:]:
            end = position + length * ENTRY_BYTES
            packed.append(data[position:end])
            position = end
        if position != len(data):
            raise ValueError(f"{len(data)} bytes, of which a state of this layout fills {position}")
        return cls(
            layout,
            slots,
            values[1],
            values[2],
            values[3:counts_at],
            list(values[counts_at:earliest_at]),
            list(values[earliest_at:lengths_at]),
            packed,
        )
