"""The state of one entity: a row of slots that folds events, merges with other shards and becomes bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import starmap
from typing import Final, cast

import numpy as np

from shared.events import Event, effective_at, id_hash
from shared.features.aggregations import (
    EXPIRES_AFTER_MS,
    NEVER,
    Entry,
    Floats,
    Ints,
    Layout,
    add_entry,
    decay,
    merge_entries,
)

FORMAT: Final = 1
"""Of all bytes that user shards and item counters become. It is part of STATE_VERSION: raise it with every change."""

EMPTY_AT: Final = np.iinfo(np.int64).min
"""newest_at and last_enqueued_at of a state that has folded nothing."""

_HEADER = struct.Struct("<qq")
_LENGTH = struct.Struct("<H")
_ENTRY = struct.Struct("<qQQ")


@dataclass(slots=True)
class EntityState:
    """What is known of one entity. Decayed values stand at `newest_at`; all instants are epoch ms."""

    layout: Layout
    newest_at: int
    last_enqueued_at: int
    decayed: Floats
    counts: Ints
    earliest: Ints
    lists: list[list[Entry]] = field(default_factory=list)

    @classmethod
    def empty(cls, layout: Layout) -> EntityState:
        """Nothing folded yet."""
        return cls(
            layout,
            EMPTY_AT,
            EMPTY_AT,
            np.zeros(len(layout.decayed)),
            np.zeros(len(layout.counts), dtype=np.int64),
            np.full(len(layout.earliest), NEVER, dtype=np.int64),
            [[] for _ in layout.lists],
        )

    def add(self, event: Event, enqueued_at: int) -> None:
        """Fold one event; where it stands in the log does not matter."""
        at = effective_at(event.occurred_at_ms, enqueued_at)
        intake = self.layout.intake(event.event_type)
        known_at = None if self.newest_at == EMPTY_AT else self.newest_at
        self.decayed = self.layout.fold_decayed(self.decayed, known_at, event, at)
        self.newest_at = max(self.newest_at, at)
        self.last_enqueued_at = max(self.last_enqueued_at, enqueued_at)
        self.counts = self.counts + intake.counted
        for slot in intake.dated:
            self.earliest[slot] = min(self.earliest[slot], at)
        if event.item_id is not None and intake.listed:
            entry = (at, id_hash(event.event_id), id_hash(event.item_id))
            for slot, k in intake.listed:
                add_entry(self.lists[slot], entry, k)

    def expired(self, now_at: int) -> bool:
        """Has nothing been enqueued for this entity for so long that its behaviour no longer counts?"""
        return self.last_enqueued_at != EMPTY_AT and now_at - self.last_enqueued_at > EXPIRES_AFTER_MS

    def merge(self, other: EntityState) -> EntityState:
        """The state of all events that either holds; neither is changed."""
        newest_at = max(self.newest_at, other.newest_at)
        return EntityState(
            self.layout,
            newest_at,
            max(self.last_enqueued_at, other.last_enqueued_at),
            self.decayed_at(newest_at) + other.decayed_at(newest_at),
            self.counts + other.counts,
            np.minimum(self.earliest, other.earliest),
            [
                merge_entries(mine, theirs, one.k)
                for mine, theirs, one in zip(self.lists, other.lists, self.layout.lists, strict=True)
            ],
        )

    def decayed_at(self, as_of: int) -> Floats:
        """float64[D] at `as_of`, never before the newest folded time."""
        if self.newest_at == EMPTY_AT:
            return self.decayed
        return decay(self.decayed, max(as_of - self.newest_at, 0), self.layout.half_lives_ms)

    def encode(self) -> bytes:
        """Little-endian: newest_at, last_enqueued_at, decayed, counts, earliest, then each list with its length."""
        parts = [
            _HEADER.pack(self.newest_at, self.last_enqueued_at),
            self.decayed.tobytes(),
            self.counts.tobytes(),
            self.earliest.tobytes(),
        ]
        for entries in self.lists:
            parts.append(_LENGTH.pack(len(entries)))
            parts += starmap(_ENTRY.pack, entries)
        return b"".join(parts)

    @classmethod
    def decode(cls, layout: Layout, data: bytes) -> EntityState:
        """The inverse of `encode` under the same layout; raises ValueError or struct.error for other bytes."""
        newest_at, last_enqueued_at = _HEADER.unpack_from(data)
        position = _HEADER.size
        decayed = np.frombuffer(data, np.float64, len(layout.decayed), position)
        position += decayed.nbytes
        counts = np.frombuffer(data, np.int64, len(layout.counts), position)
        position += counts.nbytes
        earliest = np.frombuffer(data, np.int64, len(layout.earliest), position).copy()
        position += earliest.nbytes
        lists: list[list[Entry]] = []
        for _ in layout.lists:
            (length,) = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size
            end = position + length * _ENTRY.size
            lists.append(cast("list[Entry]", list(_ENTRY.iter_unpack(data[position:end]))))
            position = end
        if position != len(data):
            raise ValueError(f"{len(data)} bytes, of which a state of this layout fills {position}")
        return cls(layout, newest_at, last_enqueued_at, decayed, counts, earliest, lists)
