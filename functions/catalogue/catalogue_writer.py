"""Changes of the catalogue as events: every write is an `item_updated` and nothing else, the fold alone writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Final, Protocol

import msgspec

from functions.event_intake import EventIntake, Fate
from functions.releases.loaded_release import LoadedRelease
from shared.errors import BrokerUnavailable, InvalidEvent, ReleaseUnavailable
from shared.events import EventType, from_ms, id_hash
from shared.features.items import ItemTable


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of one item: `fields` are JSON values of `ItemChanges`.

    `item_id` is one that `check_addressable` lets pass. `occurred_at` is the back office's own instant, aware, None for
    now; `event_id` its own id of this change, None where one is to be made up.
    """

    item_id: str
    fields: Mapping[str, Any]
    occurred_at: datetime | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a change, and the event that carries it."""

    item_id: str
    event_id: str
    occurred_at: datetime
    fate: Fate
    reason: str | None = None


class InvalidChange(InvalidEvent):
    """A change that makes no valid event."""


class Releases(Protocol):
    """Whose item table tells what is known."""

    def main_release(self) -> LoadedRelease:
        """Raises ReleaseUnavailable."""
        ...


class CatalogueWriter:
    """Appends changes to the broker log by the way that all events take; safe to call from many threads."""

    def __init__(
        self, intake: EventIntake, releases: Releases, clock: Callable[[], int], new_id: Callable[[], str]
    ) -> None:
        """`clock` tells epoch ms; `new_id` gives ids that never come again."""
        self._intake = intake
        self._releases = releases
        self._clock = clock
        self._new_id = new_id
        self._last_at = 0
        self._ticking = threading.Lock()

    def write(self, change: Change) -> Written:
        """One change, acknowledged.

        Raises:
            InvalidChange: it is none.
            BrokerUnavailable: the broker log did not acknowledge it; sending it again is safe.
        """
        written = self.write_all([change])[0]
        if written.fate is Fate.REJECTED:
            raise InvalidChange(written.reason or "not a valid change of an item")
        if written.fate is Fate.UNACKNOWLEDGED:
            raise BrokerUnavailable("the broker log did not acknowledge the change; send it again")
        return written

    def write_all(self, changes: Sequence[Change]) -> list[Written]:
        """What became of each change, in order; each stands for itself.

        Raises:
            BrokerUnavailable: nothing was acknowledged.
        """
        now = self._tick()
        named = [
            replace(one, event_id=one.event_id or self._new_id(), occurred_at=one.occurred_at or now)
            for one in self._with_arrivals(changes, now)
        ]
        fates = self._intake.take([_event_of(one) for one in named])
        return [
            Written(one.item_id, str(one.event_id), one.occurred_at or now, outcome.fate, outcome.reason)
            for one, outcome in zip(named, fates, strict=True)
        ]

    def _tick(self) -> datetime:
        """Now, but never twice the same: of two writes through this worker the later one wins."""
        with self._ticking:
            self._last_at = max(self._clock(), self._last_at + 1)
            return from_ms(self._last_at)

    def _with_arrivals(self, changes: Sequence[Change], now: datetime) -> Iterator[Change]:
        """A product that nobody knows yet arrives now, unless its change says when."""
        arriving = self._unknown({one.item_id for one in changes if _describes(one)})
        for one in changes:
            if one.item_id in arriving and _describes(one):
                arrived_at = min(one.occurred_at or now, now)
                yield replace(one, fields={**one.fields, "arrived_at": arrived_at})
            else:
                yield one

    def _unknown(self, item_ids: set[str]) -> set[str]:
        """Those that this worker's table has no description of; none while it has no table to tell by."""
        if not item_ids:
            return set()
        try:
            release = self._releases.main_release()
            with release.items.reading(release.release_id) as stock:
                table = stock.shelf.table
                return {one for one in item_ids if not _held(table, release, one)}
        except ReleaseUnavailable:
            return set()


_INSTANT: Final = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)])


def instant_of(text: str) -> datetime:
    """The instant that an ISO 8601 text with a zone names; raises ValueError."""
    try:
        instant: datetime = _INSTANT.decode(msgspec.json.encode(text))
    except msgspec.ValidationError as error:
        raise ValueError("must be an instant in ISO 8601 with a time zone, such as 2026-11-23T08:30:00Z") from error
    return instant


def _describes(change: Change) -> bool:
    return bool(change.fields.get("title")) and "arrived_at" not in change.fields


def _held(table: ItemTable, release: LoadedRelease, item_id: str) -> bool:
    """Has the shop had this item before, deleted or not?"""
    item = id_hash(item_id)
    row = table.row_of.get(item)
    return item in release.index_of or (row is not None and bool(table.products[row].title))


def _event_of(change: Change) -> bytes:
    return msgspec.json.encode(
        {
            "event_id": change.event_id,
            "event_type": EventType.ITEM_UPDATED.value,
            "occurred_at": change.occurred_at,
            "item_id": change.item_id,
            "changes": dict(change.fields),
        }
    )
