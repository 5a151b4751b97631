"""Vectors of past pages computed anew from the lake alone: only rows at or below the marks each page recorded."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.events import ItemId
from shared.features.definitions import LISTS
from shared.features.items import ItemTable
from shared.features.replay import LoggedEvent, UserShards
from shared.features.shard import Shopper
from shared.features.vector import Matrix, assemble
from shared.features.views import PairView, RequestView, RetrievalBlock, UserView, user_lists
from shared.recommend import item_rows

Part = tuple[str, int]
NOTHING: Final = -1
"""The mark of a partition of which nothing was seen."""


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """What `functions/exposure_lines.py` wrote of one page, as far as its vectors depend on it."""

    recommendation_id: str
    release: str
    worker: str
    number: int
    state_version: str
    schema: str
    features_count: int
    user_id: str
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
        )


@dataclass
class Past:
    """The lake's accepted events by partition, and an item table folded up to some marks.

    Pages are best asked for in ascending order of marks: the table then only moves on.
    """

    parts: dict[Part, list[LoggedEvent]]
    by_user: dict[str, list[LoggedEvent]]

    def __post_init__(self) -> None:
        """Nothing folded."""
        self._start_over()

    @classmethod
    def of(cls, events: list[LoggedEvent]) -> Past:
        """`events` in (source, partition, sequence) order."""
        parts: dict[Part, list[LoggedEvent]] = {}
        by_user: dict[str, list[LoggedEvent]] = {}
        for logged in events:
            parts.setdefault((logged.source, logged.partition), []).append(logged)
            if logged.event.user_id is not None:
                by_user.setdefault(logged.event.user_id, []).append(logged)
        return cls(parts, by_user)

    def vectors(self, exposure: Exposure, time_zone: ZoneInfo) -> NDArray[np.float32]:
        """float32[n, F] of the page's items as the features say they must have been, in the release's time zone."""
        table = self._items_at(exposure.item_marks)
        shopper = self._shopper_at(exposure)
        lists = user_lists(shopper.state, table.row_of, LISTS)
        user = UserView(shopper.state, exposure.as_of, lists, time_zone)
        block = table.block(item_rows(table, exposure.items), exposure.as_of)
        pair = PairView(user, block, table.category, table.brand)
        request = RequestView(exposure.as_of, time_zone, exposure.device, exposure.surface)
        return assemble(pair, exposure.retrieval(), request)

    def _shopper_at(self, exposure: Exposure) -> Shopper:
        shards = UserShards()
        for logged in self.by_user.get(exposure.user_id, ()):
            if logged.sequence <= exposure.visibility.get(part_name(logged), NOTHING):
                shards.fold(logged)
        return shards.shopper(exposure.user_id, exposure.as_of)

    def _items_at(self, marks: Mapping[str, int]) -> ItemTable:
        if any(marks.get(name, NOTHING) < held for name, held in self._folded.items()):
            self._start_over()
        for part, events in self.parts.items():
            name = f"{part[0]}.{part[1]}"
            place, mark = self._place.get(part, 0), marks.get(name, NOTHING)
            while place < len(events) and events[place].sequence <= mark:
                self._table.fold(events[place].event, events[place].enqueued_at)
                place += 1
            self._place[part], self._folded[name] = place, mark
        return self._table

    def _start_over(self) -> None:
        self._table = ItemTable()
        self._place: dict[Part, int] = {}
        self._folded: dict[str, int] = {}


def part_name(logged: LoggedEvent) -> str:
    """The partition as exposures name it."""
    return f"{logged.source}.{logged.partition}"
