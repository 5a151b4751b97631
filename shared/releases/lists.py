"""The nightly lists as bytes: each carries its release and a checksum, so that no reader can mix two nights.

Layout, little-endian: release tag (8 bytes, BLAKE2b of the release id), CRC-32 of all that follows, then the body.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from shared.errors import CorruptRecord

_HEADER = struct.Struct("<8sI")
_RECORD = struct.Struct("<qqHH")
_LIST = struct.Struct("<HB")


@dataclass(frozen=True, slots=True)
class NightlyRecord:
    """What the night knows of one user: her ALS list, best first, and her factor.

    It holds as long as her state is the one it was made from: same `newest_at` (epoch ms), same `actions_count`.
    """

    newest_at: int
    actions_count: int
    indexes: NDArray[np.int32]
    scores: NDArray[np.float32]
    vector: NDArray[np.float32]

    def encode(self, release_id: str) -> bytes:
        """int32 indexes, float32 scores, float16 factor."""
        header = _RECORD.pack(self.newest_at, self.actions_count, len(self.indexes), len(self.vector))
        arrays = (self.indexes.astype("<i4"), self.scores.astype("<f4"), self.vector.astype("<f2"))
        return _sealed(release_id, header + b"".join(array.tobytes() for array in arrays))


def decode_record(release_id: str, data: bytes) -> NightlyRecord:
    """The inverse of `NightlyRecord.encode`; raises CorruptRecord."""
    body = _opened(release_id, data, _RECORD.size)
    newest_at, actions_count, length, width = _RECORD.unpack_from(body)
    position = _RECORD.size
    _check_size(body, position + 8 * length + 2 * width)
    indexes = np.frombuffer(body, "<i4", length, position)
    scores = np.frombuffer(body, "<f4", length, position + 4 * length)
    vector = np.frombuffer(body, "<f2", width, position + 8 * length).astype(np.float32)
    return NightlyRecord(newest_at, actions_count, indexes, scores, vector)


@dataclass(frozen=True, slots=True)
class NeighbourList:
    """One item's list: int32[k] indexes, best first, and float32[c, k] columns of which the first is the score."""

    indexes: NDArray[np.int32]
    columns: NDArray[np.float32]

    def encode(self, release_id: str) -> bytes:
        """Length, number of columns, indexes, columns."""
        head = _LIST.pack(len(self.indexes), len(self.columns))
        return _sealed(release_id, head + self.indexes.astype("<i4").tobytes() + self.columns.astype("<f4").tobytes())


def decode_list(release_id: str, data: bytes) -> NeighbourList:
    """The inverse of `NeighbourList.encode`; raises CorruptRecord."""
    body = _opened(release_id, data, _LIST.size)
    length, columns = _LIST.unpack_from(body)
    _check_size(body, _LIST.size + 4 * length * (1 + columns))
    indexes = np.frombuffer(body, "<i4", length, _LIST.size)
    values = np.frombuffer(body, "<f4", length * columns, _LIST.size + 4 * length)
    return NeighbourList(indexes, values.reshape(columns, length))


def release_tag(release_id: str) -> bytes:
    """The 8 bytes that stand for a release inside its lists."""
    return blake2b(release_id.encode(), digest_size=8).digest()


def _sealed(release_id: str, body: bytes) -> bytes:
    return _HEADER.pack(release_tag(release_id), zlib.crc32(body)) + body


def _check_size(body: bytes, size: int) -> None:
    if len(body) != size:
        raise CorruptRecord(f"a list of {len(body)} bytes where its lengths make {size}: one of another kind")


def _opened(release_id: str, data: bytes, shortest: int) -> bytes:
    if len(data) < _HEADER.size:
        raise CorruptRecord(f"a list of {len(data)} bytes is too short to be one")
    tag, checksum = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if tag != release_tag(release_id):
        raise CorruptRecord(f"a list under the keys of release {release_id} belongs to another release")
    if zlib.crc32(body) != checksum:
        raise CorruptRecord(f"a list of release {release_id} fails its checksum")
    if len(body) < shortest:
        raise CorruptRecord(f"a list of {len(body)} bytes is too short to be of the kind asked for")
    return body
