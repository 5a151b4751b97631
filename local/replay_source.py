"""What a replay pushes: a lake's accepted events, day by day in log order, with a place to go on from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import ConfigurationError, LakeConflict
from shared.events import EventType
from shared.features.replay import LoggedEvent
from shared.ingest.lake_files import day_text, read_file
from shared.ingest.lake_manifest import FileEntry, LakeManifest, read_manifest
from shared.ingest.lake_reading import in_order
from shared.ingest.lake_sealed import not_yet_in, read_sealed, sealed_files
from shared.ingest.lake_table import LAKE_SCHEMA, table_of_landing
from shared.ingest.logged_events import in_log_time, logged_events
from shared.ports import BlobStore, LandingRow, Verdict

_SLICE = 5000
_NEEDED = ("source", "partition", "sequence", "enqueued_at", "verdict", "event_id", "event_type", "user_id")
_SENDABLE = (
    (pc.field("verdict") == Verdict.ACCEPTED.value)
    & pc.field("event_id").is_valid()
    & (pc.field("user_id").is_valid() | (pc.field("event_type") == EventType.ITEM_UPDATED.value))
)
"""Accepted, and whole: a row whose shopper was redacted has no key to send it by."""
_TRIES = 3


class Place(msgspec.Struct, frozen=True):
    """How far a replay is: `offset` events of this UTC day of enqueued_at are in, `total` of all days."""

    day: str
    offset: int
    total: int


@dataclass(frozen=True, slots=True)
class DaySummary:
    """One day's accepted events and the instants (epoch ms) between which the broker took them."""

    day: str
    events: int
    first_at: int
    last_at: int


class RecordedDays:
    """The accepted events of a lake in (enqueued_at, source, partition, sequence) order, which keeps each partition's.

    One day is in memory at a time. Rows that come while it runs are read with their day.
    """

    def __init__(
        self, blobs: BlobStore, *, source: str | None = None, first: date | None = None, last: date | None = None
    ) -> None:
        """All sources, or one; all days, or those from `first` to `last`, both included, in UTC.

        Raises:
            ConfigurationError: the lake is empty or has no such source, or no day lies between these.
        """
        self._blobs = blobs
        self._source = source
        self._sealed_days: dict[str, frozenset[str]] = {}
        known = {*self._sources()}
        if not known:
            raise ConfigurationError("there is no lake here: give --lake the folder of a shop that holds events")
        if source is not None and source not in known:
            raise ConfigurationError(f"the lake has no source {source!r}; it has {', '.join(sorted(known))}")
        texts = (first.isoformat() if first else "", last.isoformat() if last else "9999-12-31")
        self.days = [day for day in sorted({*self._known_days()}) if texts[0] <= day <= texts[1]]
        if not self.days:
            raise ConfigurationError(
                "the lake has no events on these days; leave out --from and --to-day to see its days"
            )

    def summaries(self) -> Iterator[DaySummary]:
        """What each day holds; a day without an accepted event is left out."""
        for day in self.days:
            instants = self._accepted(day, _NEEDED)["enqueued_at"]
            if len(instants):
                span = pc.min_max(instants).as_py()
                yield DaySummary(day, len(instants), span["min"], span["max"])

    def events(self, after: Place | None = None) -> Iterator[tuple[Place, LoggedEvent]]:
        """Each event with the place at which it and all before it are in; `after` leaves those before out."""
        total = 0 if after is None else after.total
        for day in self.days:
            if after is not None and day < after.day:
                continue
            done = after.offset if after is not None and day == after.day else 0
            table = in_log_time(self._accepted(day, LAKE_SCHEMA.names))
            for start in range(done, table.num_rows, _SLICE):
                for offset, logged in enumerate(logged_events(table.slice(start, _SLICE)), start=start + 1):
                    total += 1
                    yield Place(day, offset, total), logged

    def _accepted(self, day: str, columns: Collection[str]) -> pa.Table:
        for _ in range(_TRIES):
            manifest = read_manifest(self._blobs)
            try:
                table = self._read(day, columns, manifest)
            except FileNotFoundError:
                continue  # a compaction replaced it: the manifest names another
            return table.filter(_SENDABLE)
        raise LakeConflict(f"a file of {day} that the lake manifest names is gone; restore it or ingest again")

    def _read(self, day: str, columns: Collection[str], manifest: LakeManifest | None) -> pa.Table:
        schema = pa.schema([field for field in LAKE_SCHEMA if field.name in columns])
        entries = [entry for entry in self._entries(manifest) if entry.day == day]
        tables = [schema.empty_table(), *(read_file(self._blobs, entry, columns) for entry in entries)]
        if rows := [row for row in self._sealed(manifest, day) if day_text(row.enqueued_at) == day]:
            tables.append(table_of_landing(rows).select(schema.names))
        return in_order(tables)

    def _sealed(self, manifest: LakeManifest | None, day: str | None = None) -> Iterator[LandingRow]:
        """Rows that no night has compacted yet; files known to hold nothing of `day` are not opened again."""
        for file in not_yet_in(sealed_files(self._blobs, self._source), manifest):
            days = self._sealed_days.get(file.name)
            if day is None or days is None or day in days:
                rows = read_sealed(self._blobs, file.name)
                self._sealed_days[file.name] = frozenset(day_text(row.enqueued_at) for row in rows)
                yield from rows

    def _entries(self, manifest: LakeManifest | None) -> Iterator[FileEntry]:
        for entry in manifest.files if manifest else ():
            if self._source in {None, entry.source}:
                yield entry

    def _sources(self) -> Iterator[str]:
        manifest = read_manifest(self._blobs)
        yield from (entry.source for entry in (manifest.files if manifest else ()))
        yield from (file.source for file in sealed_files(self._blobs))

    def _known_days(self) -> Iterator[str]:
        manifest = read_manifest(self._blobs)
        yield from (entry.day for entry in self._entries(manifest))
        yield from (day_text(row.enqueued_at) for row in self._sealed(manifest))
