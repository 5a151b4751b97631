"""Item state in this worker's memory: all items as one table, kept up with the change feed of every partition."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from functions.read_write_lock import ReadWriteLock
from shared.adapters.redis_shards import FeedSlice, ItemSnapshot, RedisShardReader
from shared.catalog import decode_entry
from shared.errors import ReleaseUnavailable
from shared.events import EventSource, ItemId
from shared.features.items import ItemTable
from shared.features.views import Rows
from shared.ports import Mark
from shared.recommend import Shelf, item_rows

Part = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Stock:
    """One consistent look: a release's shelf, and up to where each (source, partition) is folded into its table."""

    shelf: Shelf
    marks: Mapping[Part, Mark | None]


class FollowedItems:
    """The items of one set of event sources, with a shelf for every release that reads these sources.

    The table is changed in place, so whoever computes from it holds `reading`: between entering and leaving, table,
    shelf and marks stand still and belong together. Changes come from `follow` and `adopt` alone, one at a time; what
    they read of Redis is read before readers are kept out.
    """

    def __init__(self, reader: RedisShardReader, sources: Sequence[EventSource]) -> None:
        """Nothing is read yet."""
        self.sources = tuple(sources)
        self._reader = reader
        self._table = ItemTable()
        self._lock = ReadWriteLock()
        self._writers = threading.Lock()
        self._parts = [(source.name, partition) for source in self.sources for partition in source.partitions()]
        self._positions: dict[Part, int] = dict.fromkeys(self._parts, 0)
        self._marks: dict[Part, Mark | None] = dict.fromkeys(self._parts)
        self._rows: dict[str, Rows] = {}
        self._shelves: dict[str, Shelf] = {}

    @property
    def marks(self) -> Mapping[Part, Mark | None]:
        """Up to where each partition is folded; None where the state holds nothing of it."""
        return self._marks

    def follow(self) -> int:
        """Take in what changed since the last time and return in how many partitions. Raises StateUnavailable."""
        with self._writers:
            changes = {part: change for part in self._parts if (change := self._read(part)) is not None}
            if changes:
                with self._lock.writing():
                    for part, change in changes.items():
                        self._apply(part, change)
                    self._marks = self._marks | {part: change.mark for part, change in changes.items()}
                    self._restock()
            return len(changes)

    def adopt(self, release_id: str, item_ids: Sequence[ItemId]) -> None:
        """Keep a shelf for a release from now on."""
        with self._writers, self._lock.writing():
            self._rows[release_id] = item_rows(self._table, item_ids)
            self._restock()

    def drop(self, release_id: str) -> None:
        """Forget a release's shelf."""
        with self._writers, self._lock.writing():
            self._rows.pop(release_id, None)
            self._shelves.pop(release_id, None)

    @contextmanager
    def reading(self, release_id: str) -> Iterator[Stock]:
        """The one consistent look of a request; keep it short and free of input and output.

        Raises ReleaseUnavailable when the release was dropped meanwhile.
        """
        with self._lock.reading():
            shelf = self._shelves.get(release_id)
            if shelf is None:
                raise ReleaseUnavailable(f"release {release_id} was retired a moment ago; ask again")
            yield Stock(shelf, self._marks)

    def _read(self, part: Part) -> FeedSlice | ItemSnapshot | None:
        position = self._positions[part]
        changes = self._reader.poll_feed(*part, position)
        if changes.reload:
            return self._reader.snapshot_items(*part)
        return None if changes.last_id == position else changes

    def _apply(self, part: Part, change: FeedSlice | ItemSnapshot) -> None:
        if isinstance(change, ItemSnapshot):
            self._table.clear_part(part)
        self._table.load_part(part, change.counters, [decode_entry(data) for data in change.entries.values()])
        self._positions[part] = change.last_id

    def _restock(self) -> None:
        """Every shelf anew, with what it computes late computed now: no request shall pay for it."""
        for release_id, rows in self._rows.items():
            shelf = Shelf.of(self._table, rows, with_young=True)
            _ = shelf.trends.order, shelf.trends.best, shelf.trends.category_share
            self._shelves[release_id] = shelf


class ItemFollower:
    """All tables of this worker: one for each set of event sources that a loaded release reads."""

    def __init__(self, reader: RedisShardReader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._tables: dict[tuple[EventSource, ...], FollowedItems] = {}

    def items_of(self, sources: Sequence[EventSource]) -> FollowedItems:
        """The table of these sources, caught up when it is new. Raises StateUnavailable."""
        key = tuple(sources)
        with self._lock:
            held = self._tables.get(key)
        if held is None:
            held = FollowedItems(self._reader, key)
            held.follow()
            with self._lock:
                held = self._tables.setdefault(key, held)
        return held

    def keep_only(self, used: Sequence[FollowedItems]) -> None:
        """Forget the tables that no release reads any more."""
        with self._lock:
            self._tables = {key: items for key, items in self._tables.items() if items in used}

    def follow(self) -> int:
        """Bring every table up to date and return how many partitions changed. Raises StateUnavailable."""
        with self._lock:
            tables = list(self._tables.values())
        return sum(items.follow() for items in tables)
