"""A user's shard: all that one partition of one source knows of her, with what makes its fold idempotent."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, cast

import msgspec
import numpy as np

from shared.catalog import FieldVersion
from shared.errors import CorruptRecord
from shared.events import Preferences
from shared.features.aggregations import DAY_MS
from shared.features.definitions import USER_LAYOUT
from shared.features.state import EMPTY_AT, EntityState

RING_SPAN_MS: Final = DAY_MS
RING_SIZE: Final = 256

_RING_DTYPE: Final = np.dtype([("event", "<u8"), ("enqueued_at", "<i8")])
_HEADER = struct.Struct("<BqqHH")
_FORMAT: Final = 1


@dataclass(slots=True)
class AcceptedIds:
    """The ring of accepted event ids: 64-bit hashes of the last 24 h of log time, at most 256.

    What is evicted is decided per event in sequence order, so it does not depend on how the log was cut.
    """

    entries: list[tuple[int, int]] = field(default_factory=list)

    def accepts(self, event_hash: int, enqueued_at: int) -> bool:
        """Remember the id and say True, or say False when it is known already."""
        oldest = enqueued_at - RING_SPAN_MS
        if self.entries and self.entries[0][1] < oldest:
            self.entries = [entry for entry in self.entries if entry[1] >= oldest]
        if any(known == event_hash for known, _ in self.entries):
            return False
        self.entries.append((event_hash, enqueued_at))
        del self.entries[:-RING_SIZE]
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
    def empty(cls) -> UserShard:
        """A user this partition never heard of."""
        return cls(EntityState.empty(USER_LAYOUT))

    def encode(self) -> bytes:
        """Header, ring, preferences (MessagePack), state."""
        preferences = _ENCODER.encode(self.preferences_version) if self.preferences_version else b""
        return b"".join(
            (
                _HEADER.pack(_FORMAT, self.sequence, self.enqueued_at, len(self.accepted.entries), len(preferences)),
                np.array(self.accepted.entries, dtype=_RING_DTYPE).tobytes(),
                preferences,
                self.state.encode(),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> UserShard:
        """The inverse of `encode`; raises CorruptRecord for bytes of another format."""
        try:
            form, sequence, enqueued_at, ring_length, preferences_length = _HEADER.unpack_from(data)
            if form != _FORMAT:
                raise CorruptRecord(f"a user shard of format {form}, this code reads {_FORMAT}")
            ring_end = _HEADER.size + ring_length * _RING_DTYPE.itemsize
            ring = cast("list[tuple[int, int]]", np.frombuffer(data, _RING_DTYPE, ring_length, _HEADER.size).tolist())
            state_start = ring_end + preferences_length
            version = _DECODER.decode(data[ring_end:state_start]) if preferences_length else None
            state = EntityState.decode(USER_LAYOUT, data[state_start:])
        except (struct.error, ValueError, msgspec.DecodeError) as error:
            raise CorruptRecord(f"a user shard of {len(data)} bytes cannot be read: {error}") from error
        return cls(state, AcceptedIds(ring), sequence, enqueued_at, version)


@dataclass(frozen=True, slots=True)
class Shopper:
    """A user as she stands: the merge of her shards, and what she asked for."""

    state: EntityState
    preferences: Preferences | None = None


def merge_shards(shards: Iterable[UserShard], as_of: int) -> Shopper:
    """The user whom these shards describe at `as_of` (epoch ms); behaviour idle for 400 days has expired."""
    state = EntityState.empty(USER_LAYOUT)
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
