"""A user's shard: all that one partition of one source knows of her, with what makes its fold idempotent."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import starmap
from typing import Final, cast

import msgspec

from shared.catalog import FieldVersion
from shared.errors import CorruptRecord
from shared.events import Preferences
from shared.features.aggregations import DAY_MS, Layout
from shared.features.definitions import USER_LAYOUT
from shared.features.state import EMPTY_AT, FORMAT, EntityState

RING_SPAN_MS: Final = DAY_MS
RING_SIZE: Final = 256

_ACCEPTED = struct.Struct("<Qq")
_HEADER = struct.Struct("<BqqHH")


@dataclass(slots=True)
class AcceptedIds:
    """The ring of accepted event ids: 64-bit hashes of the last 24 h of log time, at most 256.

    What is evicted is decided per event in sequence order, so it does not depend on how the log was cut.
    """

    known: dict[int, int] = field(default_factory=dict)
    """Event hash to enqueued_at (epoch ms), in order of acceptance."""

    def accepts(self, event_hash: int, enqueued_at: int) -> bool:
        """Remember the id and say True, or say False when it is known already."""
        known, oldest = self.known, enqueued_at - RING_SPAN_MS
        while known and known[first := next(iter(known))] < oldest:
            del known[first]
        if known.get(event_hash, EMPTY_AT) >= oldest:
            return False
        known.pop(event_hash, None)
        known[event_hash] = enqueued_at
        if len(known) > RING_SIZE:
            del known[next(iter(known))]
        return True


@dataclass(slots=True)
class UserShard:
    """`sequence` and `enqueued_at` are those of the last record folded; -1 and `EMPTY_AT` before the first."""

    state: EntityState
    accepted: AcceptedIds = field(default_factory=AcceptedIds)
    sequence: int = -1
    enqueued_at: int = EMPTY_AT
    preferences_version: FieldVersion | None = None

    @classmethod
    def empty(cls, layout: Layout = USER_LAYOUT) -> UserShard:
        """A user this partition never heard of."""
        return cls(EntityState.empty(layout))

    def encode(self) -> bytes:
        """Header, ring, preferences (MessagePack), state."""
        preferences = _ENCODER.encode(self.preferences_version) if self.preferences_version else b""
        return b"".join(
            (
                _HEADER.pack(FORMAT, self.sequence, self.enqueued_at, len(self.accepted.known), len(preferences)),
                *starmap(_ACCEPTED.pack, self.accepted.known.items()),
                preferences,
                self.state.encode(),
            )
        )

    @classmethod
    def decode(cls, data: bytes, layout: Layout = USER_LAYOUT) -> UserShard:
        """The inverse of `encode` under the same layout; raises CorruptRecord for bytes of another format."""
        try:
            form, sequence, enqueued_at, ring_length, preferences_length = _HEADER.unpack_from(data)
            if form != FORMAT:
                raise CorruptRecord(f"a user shard of format {form}, this code reads {FORMAT}")
            ring_end = _HEADER.size + ring_length * _ACCEPTED.size
            ring = dict(cast("Iterator[tuple[int, int]]", _ACCEPTED.iter_unpack(data[_HEADER.size : ring_end])))
            state_start = ring_end + preferences_length
            version = _DECODER.decode(data[ring_end:state_start]) if preferences_length else None
            state = EntityState.decode(layout, data[state_start:])
        except (struct.error, ValueError, msgspec.DecodeError) as error:
            raise CorruptRecord(f"a user shard of {len(data)} bytes cannot be read: {error}") from error
        return cls(state, AcceptedIds(ring), sequence, enqueued_at, version)


@dataclass(frozen=True, slots=True)
class Shopper:
    """A user as she stands: the merge of her shards, and what she asked for."""

    state: EntityState
    preferences: Preferences | None = None


def merge_shards(shards: Iterable[UserShard], as_of: int, layout: Layout = USER_LAYOUT) -> Shopper:
    """The user whom these shards of one layout describe at `as_of` (epoch ms).

    Behaviour idle for 400 days has expired.
    """
    state = EntityState.empty(layout)
    newest: FieldVersion | None = None
    for shard in shards:
        if not shard.state.expired(as_of):
            state = state.merge(shard.state)
        version = shard.preferences_version
        if version is not None and (newest is None or version[:2] > newest[:2]):
            newest = version
    return Shopper(state, None if newest is None else msgspec.convert(newest[2], Preferences))


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(FieldVersion)
