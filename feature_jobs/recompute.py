"""Vectors of past pages computed anew from the lake alone: only rows at or below the marks each page recorded."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from shared.events import ItemId, keyed_user
from shared.features.definitions import LISTS
from shared.features.fold import fold_user
from shared.features.items import ItemTable
from shared.features.replay import LoggedEvent
from shared.features.shard import Shopper, UserShard, merge_shards
from shared.features.vector import Matrix, assemble
from shared.features.views import PairView, RequestView, RetrievalBlock, UserView, user_lists
from shared.recommend import item_rows

NOTHING: Final = -1
"""The mark of a partition of which nothing was seen."""

ByPart = dict[str, list[LoggedEvent]]
"""Events by partition, named `<source>.<partition>` as exposures name it, ascending in sequence."""


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """What `functions/pages/exposure_lines.py` wrote of one page, as far as its vectors depend on it."""

    recommendation_id: str
    release: str
    worker: str
    number: int
    state_version: str
    schema: str
    features_count: int
    user_id: str
    user_key: str = ""
    as_of: int
    fallback: str | None
    visibility: dict[str, int]
    item_marks: dict[str, int]
    items: list[ItemId]
    retrieval_ranks: list[list[int]]
    retrieval_scores: list[list[float]]
    vectors: str
    # Lines of older code lack these; their schema is another one, and they are skipped for it.
    retrieval_covisitation: list[list[float]] = []
    retrieval_text: list[float] = []
    device: str | None = None
    surface: str | None = None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """From a decoded line; raises msgspec.ValidationError for one of another form."""
        return msgspec.convert(line, cls)

    def logged(self) -> Matrix:
        """float32[n, F]: what the ranker read."""
        flat = np.frombuffer(base64.b64decode(self.vectors), dtype="<f4")
        return flat.reshape(len(self.items), self.features_count)

    def retrieval(self) -> RetrievalBlock:
        """What the sources said: an input, not something to recompute."""
        shape = (len(self.items), -1)
        return RetrievalBlock(
            np.array(self.retrieval_ranks, dtype=np.int16).reshape(shape),
            np.array(self.retrieval_scores, dtype=np.float32).reshape(shape),
            np.array(self.retrieval_covisitation, dtype=np.float32).reshape(shape),
            np.array(self.retrieval_text, dtype=np.float32),
        )


@dataclass
class FoldedItems:
    """An item table with every partition folded up to a mark; it only moves on."""

    table: ItemTable = field(default_factory=ItemTable)
    _marks: dict[str, int] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)

    def reaches(self, marks: Mapping[str, int]) -> bool:
        """Can it still be moved on to these marks?"""
        return all(held <= marks.get(part, NOTHING) for part, held in self._marks.items())

    def move_on(self, parts: ByPart, marks: Mapping[str, int]) -> None:
        """Fold what lies between the marks it stands at and these."""
        for part, mark in marks.items():
            if mark == self._marks.get(part, NOTHING):
                continue
            events, place = parts.get(part, []), self._places.get(part, 0)
            while place < len(events) and events[place].sequence <= mark:
                self.table.fold(events[place].event, events[place].enqueued_at)
                place += 1
            self._places[part], self._marks[part] = place, mark

    def events_folded(self) -> int:
        """How far it has come."""
        return sum(self._places.values())


@dataclass
class FoldedUser:
    """One user's events by partition, and her shards folded up to a mark each."""

    events: ByPart = field(default_factory=dict)
    _shards: dict[str, UserShard] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)

    def shopper(self, marks: Mapping[str, int], as_of: int) -> Shopper:
        """She as a page saw her that read her shards at these marks; a mark below the last one begins a shard anew."""
        seen = []
        for part, events in self.events.items():
            mark = marks.get(part, NOTHING)
            place = self._places.get(part, 0)
            if place and events[place - 1].sequence > mark:
                place = 0
            if place == 0:
                self._shards[part] = UserShard.empty()
            shard = self._shards[part]
            while place < len(events) and events[place].sequence <= mark:
                fold_user(shard, events[place].event, events[place].enqueued_at, events[place].sequence)
                place += 1
            self._places[part] = place
            if place:
                seen.append(shard)
        return merge_shards(seen, as_of)


class Past:
    """The lake's accepted events, folded as far as the pages that are asked for had seen them.

    Each worker saw its partitions move on together and never back, so it has an item table of its own here (one for
    each set of partitions that its releases read), and pages are best asked for in the order in which their worker
    made them: then every event is folded once for each worker that was alive at the same time. Any other order gives
    the same vectors, later.
    """

    def __init__(self, parts: ByPart, users: dict[str, FoldedUser]) -> None:
        """Nothing folded."""
        self._parts = parts
        self._users = users
        self._tables: dict[str, dict[tuple[str, ...], FoldedItems]] = {}
        self._idle: list[FoldedItems] = []

    @classmethod
    def of(cls, events: Iterable[LoggedEvent]) -> Past:
        """`events` in (source, partition, sequence) order."""
        parts: ByPart = {}
        users: dict[str, FoldedUser] = {}
        for logged in events:
            part = f"{logged.source}.{logged.partition}"
            parts.setdefault(part, []).append(logged)
            user_id = logged.event.subject
            if user_id is not None:
                users.setdefault(user_id, FoldedUser()).events.setdefault(part, []).append(logged)
        return cls(parts, users)

    def vectors(self, exposure: Exposure, time_zone: ZoneInfo) -> Matrix:
        """float32[n, F] of the page's items as the features say they must have been, in the release's time zone."""
        table = self._items_at(exposure.worker, exposure.item_marks)
        names = exposure.user_id, keyed_user(exposure.user_key)
        user_of = next((self._users[name] for name in names if name in self._users), None) or FoldedUser()
        shopper = user_of.shopper(exposure.visibility, exposure.as_of)
        lists = user_lists(shopper.state, table.row_of, LISTS)
        user = UserView(shopper.state, exposure.as_of, lists, time_zone)
        block = table.block(item_rows(table, exposure.items), exposure.as_of)
        pair = PairView(user, block, table.category, table.brand)
        request = RequestView(exposure.as_of, time_zone, exposure.device, exposure.surface)
        return assemble(pair, exposure.retrieval(), request)

    def finished(self, worker: str) -> None:
        """No more pages of this worker will be asked for: its item tables may serve one that began later."""
        self._idle += self._tables.pop(worker, {}).values()

    def _items_at(self, worker: str, marks: Mapping[str, int]) -> ItemTable:
        tables, parts = self._tables.setdefault(worker, {}), tuple(marks)
        held = tables.get(parts)
        if held is None or not held.reaches(marks):
            held = tables[parts] = self._nearest_idle(marks)
        held.move_on(self._parts, marks)
        return held.table

    def _nearest_idle(self, marks: Mapping[str, int]) -> FoldedItems:
        fitting = [one for one in self._idle if one.reaches(marks)]
        if not fitting:
            return FoldedItems()
        nearest = max(fitting, key=FoldedItems.events_folded)
        self._idle.remove(nearest)
        return nearest
