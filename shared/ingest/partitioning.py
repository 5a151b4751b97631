"""Which partitions there are: the live source by its settings and its past, and the partitions of many keys at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shared.events import EventSource
from shared.settings import Settings

_MULTIPLIER = np.uint32(0x5BD1E995)


def live_source(settings: Settings) -> EventSource:
    """The stream as the settings name it: with the partition count it has now, and none of those it had before."""
    return EventSource(settings.event_source, (settings.partition_count,), settings.event_producers == "ours")


def with_live(sources: Sequence[EventSource], live: EventSource) -> tuple[EventSource, ...]:
    """The sources, the live one among them with every partition count it has had."""
    joined: list[EventSource] = []
    for source in sources:
        if source.name == live.name:
            counts = (*(one for one in source.partition_counts if one not in live.partition_counts),)
            joined.append(EventSource(live.name, (*counts, *live.partition_counts), live.ours))
        else:
            joined.append(source)
    if all(source.name != live.name for source in sources):
        joined.append(live)
    return tuple(joined)


def partitions_of_keys(keys: Sequence[str], partition_count: int) -> npt.NDArray[np.int32]:
    """Kafka's murmur2 partition of each key, int32 of shape (len(keys),); keys of equal byte length go together."""
    encoded = [key.encode() for key in keys]
    lengths = np.fromiter((len(key) for key in encoded), dtype=np.int64, count=len(encoded))
    found = np.zeros(len(encoded), dtype=np.int32)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        block = np.frombuffer(b"".join(encoded[row] for row in rows), dtype=np.uint8).reshape(len(rows), int(length))
        hashes = _murmur2(block) & np.uint32(0x7FFFFFFF)
        found[rows] = (hashes % np.uint32(partition_count)).astype(np.int32)
    return found


def _murmur2(block: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """murmur2 of each row of a (keys, bytes) matrix; uint32 arithmetic wraps as Java's int does."""
    count, length = block.shape
    words = length // 4
    numbers = np.ascontiguousarray(block[:, : words * 4]).view("<u4") if words else np.zeros((count, 0), "<u4")
    state = np.full(count, 0x9747B28C ^ length, dtype=np.uint32)
    for word in range(words):
        mixed = numbers[:, word] * _MULTIPLIER
        mixed = (mixed ^ (mixed >> np.uint32(24))) * _MULTIPLIER
        state = (state * _MULTIPLIER) ^ mixed
    if length % 4:
        for place in range(length % 4):
            state = state ^ (block[:, words * 4 + place].astype(np.uint32) << np.uint32(8 * place))
        state = state * _MULTIPLIER
    state = (state ^ (state >> np.uint32(13))) * _MULTIPLIER
    return state ^ (state >> np.uint32(15))
