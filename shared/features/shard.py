"""A user's shard: all that one partition of one source knows of her, with what makes its fold idempotent."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from shared.catalog import FieldVersion
from shared.errors import CorruptRecord
from shared.events import Preferences
from shared.features.aggregations import DAY_MS, Layout
from shared.features.definitions import USER_LAYOUT
from shared.features.overlay import Overlay
from shared.features.state import EMPTY_AT, FORMAT, EntityState

RING_SPAN_MS: Final = DAY_MS
RING_SIZE: Final = 256

_HEADER = struct.Struct("<BqqqHH")
"""Format, sequence, enqueued_at, erased_at, bytes of the ring, bytes of the preferences."""
_HASH_BYTES = 8
_TIME_BYTES = 6
_ACCEPTED_BYTES = _HASH_BYTES + _TIME_BYTES
_ALL_BUT_ONE = (RING_SIZE - 1) * _ACCEPTED_BYTES


@dataclass(slots=True)
class AcceptedIds:
    """The ring of accepted event ids: 64-bit hashes of the last 24 h of log time, at most 256.

    What is evicted is decided per event in sequence order, so it does not depend on how the log was cut. The ring is
    stored as it is held: 14 bytes an id, big-endian hash and enqueued_at (epoch ms), in order of acceptance.
    """

    packed: bytes = b""

    @property
    def known(self) -> dict[int, int]:
        """Event hash to enqueued_at (epoch ms), in order of acceptance."""
        starts = range(0, len(self.packed), _ACCEPTED_BYTES)
        return {int.from_bytes(self.packed[at : at + _HASH_BYTES]): _time(self.packed, at) for at in starts}

    def accepts(self, event_hash: int, enqueued_at: int) -> bool:
        """Remember the id and say True, or say False when it is known already."""
        ring, oldest = self.packed, enqueued_at - RING_SPAN_MS
        while ring and _time(ring, 0) < oldest:
            ring = ring[_ACCEPTED_BYTES:]
        wanted = event_hash.to_bytes(_HASH_BYTES)
        if wanted in ring and (place := _find(ring, wanted)) >= 0:
            if _time(ring, place) >= oldest:
                self.packed = ring
                return False
            ring = ring[:place] + ring[place + _ACCEPTED_BYTES :]
        self.packed = ring[-_ALL_BUT_ONE:] + wanted + enqueued_at.to_bytes(_TIME_BYTES)
        return True


def _time(ring: bytes, place: int) -> int:
    return int.from_bytes(ring[place + _HASH_BYTES : place + _ACCEPTED_BYTES])


def _find(ring: bytes, wanted: bytes) -> int:
    place = ring.find(wanted)
    while place > 0 and place % _ACCEPTED_BYTES:  # bytes of two neighbours may look like a hash
        place = ring.find(wanted, place + 1)
    return place


@dataclass(slots=True)
class UserShard:
    """`sequence` and `enqueued_at` are those of the last record folded; -1 and `EMPTY_AT` before the first.

    `erased_at` is the instant of the newest erasure folded, `EMPTY_AT` without one. Such a shard is a tombstone: what
    took effect up to that instant passes it by; what it holds besides is the user who came afterwards.
    """

    state: EntityState
    accepted: AcceptedIds = field(default_factory=AcceptedIds)
    sequence: int = -1
    enqueued_at: int = EMPTY_AT
    preferences_version: FieldVersion | None = None
    erased_at: int = EMPTY_AT

    @classmethod
    def empty(cls, layout: Layout = USER_LAYOUT) -> UserShard:
        """A user this partition never heard of."""
        return cls(EntityState.empty(layout))

    def encode(self) -> bytes:
        """Header, ring, preferences (MessagePack), state."""
        preferences = _ENCODER.encode(self.preferences_version) if self.preferences_version else b""
        ring = self.accepted.packed
        header = _HEADER.pack(FORMAT, self.sequence, self.enqueued_at, self.erased_at, len(ring), len(preferences))
        return b"".join((header, ring, preferences, self.state.encode()))

    @classmethod
    def decode(cls, data: bytes, layout: Layout = USER_LAYOUT) -> UserShard:
        """The inverse of `encode` under the same layout; raises CorruptRecord for bytes of another format."""
        try:
            form, sequence, enqueued_at, erased_at, ring_bytes, preferences_bytes = _HEADER.unpack_from(data)
            if form != FORMAT:
                raise CorruptRecord(f"a user shard of format {form}, this code reads {FORMAT}")
            ring_end = _HEADER.size + ring_bytes
            state_start = ring_end + preferences_bytes
            version = _DECODER.decode(data[ring_end:state_start]) if preferences_bytes else None
            state = EntityState.decode(layout, data, state_start)
        except (struct.error, IndexError, ValueError, msgspec.DecodeError) as error:
            raise CorruptRecord(f"a user shard of {len(data)} bytes cannot be read: {error}") from error
        return cls(state, AcceptedIds(data[_HEADER.size : ring_end]), sequence, enqueued_at, version, erased_at)


def peek_erased_at(data: bytes) -> int:
    """A stored shard's `erased_at`, whatever its layout; `EMPTY_AT` for bytes of another format."""
    if len(data) < _HEADER.size or data[0] != FORMAT:
        return EMPTY_AT
    erased_at: int = _HEADER.unpack_from(data)[3]
    return erased_at


@dataclass(frozen=True, slots=True)
class Shopper:
    """A user as she stands: the merge of her shards, and what she asked for."""

    state: EntityState
    preferences: Preferences | None = None

    def as_wished(self) -> Shopper:
        """She as pages may use her: as if she had done nothing, if she does not wish them to use what she did."""
        if self.preferences is None or self.preferences.personalised:
            return self
        return Shopper(EntityState.empty(self.state.layout), self.preferences)

    @property
    def known(self) -> bool:
        """Did she do anything, or ask for anything, since she was last erased?"""
        return self.state.last_enqueued_at != EMPTY_AT or self.preferences is not None


def newest_erasure(shards: Iterable[UserShard], overlay: Overlay | None = None) -> int:
    """When the user of these shards was last erased (epoch ms), `EMPTY_AT` when she never was.

    A shard whose own `erased_at` lies before is void until its partition has folded the erasure as well.
    """
    acknowledged = () if overlay is None or overlay.erased_at is None else (overlay.erased_at,)
    return max((*(shard.erased_at for shard in shards), *acknowledged), default=EMPTY_AT)


def merge_shards(
    shards: Iterable[UserShard], as_of: int, layout: Layout = USER_LAYOUT, overlay: Overlay | None = None
) -> Shopper:
    """The user whom these shards of one layout describe at `as_of` (epoch ms).

    Behaviour idle for 400 days has expired. Void shards tell nothing, nor do preferences of an overlay that took
    effect before the newest erasure.
    """
    held = tuple(shards)
    erased_at = newest_erasure(held, overlay)
    state = EntityState.empty(layout)
    newest = None if overlay is None else overlay.preferences
    if newest is not None and newest[0] <= erased_at:
        newest = None
    for shard in held:
        if shard.erased_at < erased_at:
            continue
        if not shard.state.expired(as_of):
            state = state.merge(shard.state)
        version = shard.preferences_version
        if version is not None and (newest is None or version[:2] >= newest[:2]):
            newest = version
    return Shopper(state, None if newest is None else msgspec.convert(newest[2], Preferences))


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(FieldVersion)
