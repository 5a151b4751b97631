"""The state in Redis as a page sees it, for Feast: users' shards when asked for, all items followed in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from shared.adapters.redis_shards import ItemSnapshot, RedisShardReader
from shared.catalog import decode_entry
from shared.events import EventSource
from shared.features.items import ItemTable
from shared.features.shard import Shopper, UserShard, merge_shards

Part = tuple[str, int]


@dataclass
class FollowedTable:
    """All items of some sources, brought up to date at each look by what the change feeds say."""

    reader: RedisShardReader
    sources: Sequence[EventSource]
    table: ItemTable = field(default_factory=ItemTable)
    _positions: dict[Part, int] = field(default_factory=dict)

    def follow(self) -> None:
        """Take in what changed since the last look. Raises StateUnavailable."""
        for source in self.sources:
            for partition in source.partitions():
                self._follow_part((source.name, partition))

    def _follow_part(self, part: Part) -> None:
        position = self._positions.get(part, 0)
        found = self.reader.poll_feed(*part, position)
        change = self.reader.snapshot_items(*part) if found.reload else found
        if isinstance(change, ItemSnapshot):
            self.table.clear_part(part)
        elif change.last_id == position:
            return
        self.table.load_part(part, change.counters, [decode_entry(data) for data in change.entries.values()])
        self._positions[part] = change.last_id


class StateReader:
    """Reads, never writes. One look at a time: the table is changed in place."""

    def __init__(self, reader: RedisShardReader, sources: Sequence[EventSource]) -> None:
        """`sources` are those a page reads: the release's, and the live stream."""
        self._reader = reader
        self._sources = tuple(sources)
        self._items = FollowedTable(reader, self._sources)
        self._lock = threading.RLock()

    @contextmanager
    def looking(self, user_ids: Iterable[str]) -> Iterator[tuple[ItemTable, dict[str, list[UserShard]]]]:
        """The items, and the shards of these users, as they stand now and until the block ends.

        Raises StateUnavailable, or CorruptRecord when what is stored cannot be read.
        """
        with self._lock:
            shards = {user_id: self._shards_of(user_id) for user_id in user_ids}
            self._items.follow()
            yield self._items.table, shards

    def _shards_of(self, user_id: str) -> list[UserShard]:
        read = self._reader.read_user_shards(user_id, self._sources)
        return [UserShard.decode(one.shard) for one in read.shards if one.shard is not None]


def shopper_of(shards: dict[str, list[UserShard]], user_id: str, as_of: int) -> Shopper:
    """The user whom her shards describe at `as_of`; nobody where there are none."""
    return merge_shards(shards.get(user_id, ()), as_of)
