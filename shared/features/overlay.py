"""What the broker log acknowledged of a user and the fold may not have reached yet: preferences and erasure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from shared.catalog import FieldVersion
from shared.errors import CorruptRecord
from shared.events import Event, effective_at, event_hash

Place = tuple[str, int, int]
"""Event source, partition and sequence of the event in the broker log."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """`preferences` are a version as the fold would make it, `erased_at` (epoch ms) is the newest erasure's instant.

    `place` is where the broker log holds the preferences' event; None where the broker did not tell. Whoever merges
    it with shards takes the newest version, by (effective time, event hash); of equal ones the shard's.
    """

    preferences: FieldVersion | None = None
    erased_at: int | None = None
    place: Place | None = None

    def ahead_of(self, folded: Mapping[tuple[str, int], int]) -> Overlay:
        """What is left of it for who has read the user's shards, given the last sequence folded into each.

        Where the fold has passed the event, its verdict stands: it may have been a client's duplicate.
        """
        if self.place is None:
            return self
        source, partition, sequence = self.place
        if folded.get((source, partition), -1) < sequence:
            return self
        return replace(self, preferences=None, place=None)

    def merge(self, other: Overlay) -> Overlay:
        """Both at once: the newer preferences, unless the newer erasure voids them."""
        newer = other if _order(other) > _order(self) else self
        instants = [one.erased_at for one in (self, other) if one.erased_at is not None]
        erased_at = max(instants, default=None)
        void = newer.preferences is not None and erased_at is not None and newer.preferences[0] <= erased_at
        if void:
            return Overlay(erased_at=erased_at)
        return Overlay(newer.preferences, erased_at, newer.place)


def preferences_version(event: Event, enqueued_at: int) -> FieldVersion:
    """The version that a preferences_set event makes, which the broker took at `enqueued_at` (epoch ms)."""
    at = effective_at(event.occurred_at_ms, enqueued_at)
    return at, event_hash(event.event_id), msgspec.to_builtins(event.preferences())


NO_OVERLAY = Overlay()

FIELDS = ("at", "id", "p", "e")
"""As stored: effective time, event hash (16 hex digits), value and place, erased_at; instants in decimal."""


def encode_preferences(version: FieldVersion, place: Place | None) -> tuple[str, str, bytes]:
    """The first three of `FIELDS`."""
    at, event, value = version
    return str(at), f"{event:016x}", _ENCODER.encode((value, place))


def decode_overlay(fields: Sequence[bytes | None]) -> Overlay:
    """From the values of `FIELDS`, None where there is none. Raises CorruptRecord."""
    try:
        at, event, value, erased = fields
        erased_at = None if erased is None else int(erased)
        if at is None or event is None or value is None:
            return Overlay(erased_at=erased_at)
        wanted, place = _DECODER.decode(value)
        return Overlay((int(at), int(event, 16), wanted), erased_at, place)
    except (ValueError, msgspec.DecodeError) as error:
        raise CorruptRecord(f"a user's overlay cannot be read: {error}") from error


def _order(overlay: Overlay) -> tuple[float, int]:
    return (float("-inf"), 0) if overlay.preferences is None else overlay.preferences[:2]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[dict[str, object], Place | None])
