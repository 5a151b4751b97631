"""Bounded lists of who touched what when, as packed bytes whose order is the order of the entries.

An entry is 16 bytes, big-endian: the effective time (48 bits, shifted to be positive), a tie-breaker (16 bits) and the
item hash (64 bits). Byte strings compare as these triples do, so a list is ordered, merged and stored without being
unpacked.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, cast
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Entry = tuple[int, int, int]
"""(effective_at epoch ms, tie-breaker of the event, item id hash)."""

ENTRY_BYTES: Final = 16
_ENTRY = struct.Struct(">QQ")
_SHIFT_MS: Final = 1 << 46
"""Added to every time: the year 1 is positive then, and 48 bits reach beyond the year 8000."""


def pack_entry(at: int, event_id: str, item_hash: int) -> bytes:
    """One entry.

    The tie-breaker is 16 bits of the event id's CRC-32: it orders events of one instant, and lets two events pass as
    one only when they share user, type, millisecond, item and these bits. Raises struct.error beyond the year 8000.
    """
    return _ENTRY.pack(at + _SHIFT_MS << 16 | crc32(event_id.encode()) & 0xFFFF, item_hash)


def unpack_entries(packed: bytes) -> list[Entry]:
    """The entries, ascending."""
    pairs = cast("Iterator[tuple[int, int]]", _ENTRY.iter_unpack(packed))
    return [((key >> 16) - _SHIFT_MS, key & 0xFFFF, item) for key, item in pairs]


def entry_columns(packed: bytes) -> tuple[list[int], NDArray[np.int64]]:
    """Item hashes and effective times (int64[n], epoch ms), ascending in time."""
    table = np.frombuffer(packed, dtype=">u8").reshape(-1, 2)
    return table[:, 1].tolist(), (table[:, 0] >> np.uint64(16)).astype(np.int64) - _SHIFT_MS


def add_entry(packed: bytes, entry: bytes, k: int) -> bytes:
    """The `k` greatest entries of a list and one more; equal entries are kept once."""
    if entry > packed[-ENTRY_BYTES:]:
        packed += entry
    else:
        place = bisect_left(range(len(packed) // ENTRY_BYTES), entry, key=lambda one: _entry(packed, one))
        if _entry(packed, place) == entry:
            return packed
        place *= ENTRY_BYTES
        packed = packed[:place] + entry + packed[place:]
    return packed[-k * ENTRY_BYTES :]


def merge_entries(left: bytes, right: bytes, k: int) -> bytes:
    """The `k` greatest entries of the union."""
    if not left or not right:
        return left or right
    entries = {packed[at : at + ENTRY_BYTES] for packed in (left, right) for at in range(0, len(packed), ENTRY_BYTES)}
    return b"".join(sorted(entries)[-k:])


def _entry(packed: bytes, place: int) -> bytes:
    return packed[place * ENTRY_BYTES : (place + 1) * ENTRY_BYTES]
