"""Compact the lake: sealed files become Parquet by UTC day of enqueued_at, behind one write of the manifest.

Whoever was erased goes in the same write: what the lake holds of her, wherever it lies, is rewritten without her.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from batch.erasure_receipts import clear_beside_lake, settle_receipts
from batch.progress import progress
from batch.redact_lake import DAYS_FOLDER, LakeErasures, clear_files
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.user_keys import keyed_with
from shared.cli import command
from shared.errors import ConfigurationError, LakeConflict, StreamRecreated
from shared.events import EventSource
from shared.ingest.erased_users import ERASED_FOLDER, KeyOf, no_secret
from shared.ingest.lake_files import DAY_MS, day_text, read_file, write_file
from shared.ingest.lake_history import HISTORY_FOLDER
from shared.ingest.lake_manifest import (
    LakeManifest,
    ShopSettings,
    SourceEntry,
    read_manifest,
    write_manifest,
)
from shared.ingest.lake_reading import in_order
from shared.ingest.lake_sealed import SEALED_FOLDER, SealedFile, end_of, read_sealed, sealed_files
from shared.ingest.lake_table import table_of_landing
from shared.ingest.redaction import redact
from shared.ports import BlobStore, LandingRow, Mark, Verdict
from shared.settings import Settings

SMALL_ROWS = 100_000
"""A day's file below this is merged when the day gets new rows."""

_KEEP_SEALED_MS = DAY_MS


@dataclass(slots=True)
class Compaction:
    """What one compaction did."""

    sealed_files: int = 0
    rows: int = 0
    files_written: int = 0
    files_merged: int = 0
    files_redacted: int = 0
    erasures: int = 0
    sealed_deleted: int = 0
    version: int = 0
    days: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return (
            f"{self.rows:,} new rows from {self.sealed_files:,} sealed files over {len(self.days)} days, "
            f"{self.files_written} Parquet files written, {self.files_merged} merged, "
            f"{self.sealed_deleted:,} sealed files deleted; {self.erasures:,} new erasures, {self.files_redacted:,} "
            f"Parquet files rewritten for them; lake manifest version {self.version}"
        )


def compact(blobs: BlobStore, live: EventSource | None = None, *, key_of: KeyOf = no_secret) -> Compaction:
    """Take every sealed file into Parquet, move the manifest once, then delete what a day ago was taken in.

    `live` says how the running source is partitioned; another source new to the lake counts as foreign, with as many
    partitions as were seen. Running it again, or after a kill at any moment, ends in the same rows. `key_of` hashes
    users' ids, which only erasures need: their users' rows are redacted with the same move of the manifest, and the
    files that held them go at once.

    Raises:
        StreamRecreated: a sequence stands in the lake with another enqueued_at.
        LakeConflict: another writer moved the manifest meanwhile; nothing was changed.
        CorruptRecord: a sealed file is damaged.
        ConfigurationError: somebody was erased, and there is no `key_of`.
    """
    before = read_manifest(blobs) or LakeManifest(version=0, shop=ShopSettings())
    _delete(blobs, set(before.left_over) - {entry.name for entry in before.files})
    fresh = [file for file in sealed_files(blobs) if file.name not in before.sealed_inputs]
    report = Compaction(sealed_files=len(fresh), version=before.version)
    behind = before.erasures is None or any(entry.cleared < before.erasures.count for entry in before.files)
    after = before
    if fresh or (behind and before.files):
        try:
            after = _Taking(blobs, before, LakeErasures.of(blobs, before, fresh, key_of), report).run(fresh, live)
        except FileNotFoundError as error:
            raise LakeConflict(f"{error} any more: another ingest or compaction ran; run the command again") from error
    newest = max((at for marks in after.marks.values() for _, at in marks.values()), default=0)
    for name, last_at in before.sealed_inputs.items():
        if newest - last_at > _KEEP_SEALED_MS:
            blobs.delete(name)
            report.sealed_deleted += 1
    return report


class _Taking:
    """One move of the manifest: what it holds so far, and what goes when it has moved."""

    def __init__(self, blobs: BlobStore, before: LakeManifest, erasures: LakeErasures, report: Compaction) -> None:
        self._blobs = blobs
        self._before = before
        self._erasures = erasures
        self._report = report
        self._files = before.files
        self._holding: list[str] = []
        """Sealed files that held somebody who was erased."""

    def run(self, fresh: Sequence[SealedFile], live: EventSource | None) -> LakeManifest:
        """Write the day files of the fresh sealed files, clear the others, move the manifest, delete what was."""
        blobs, before = self._blobs, self._before
        lay_there = {*blobs.names(DAYS_FOLDER), *blobs.names(HISTORY_FOLDER), *blobs.names(ERASED_FOLDER)}
        there = set(blobs.names(SEALED_FOLDER))
        sources = {entry.name: entry for entry in before.sources}
        marks = {source: dict(held) for source, held in before.marks.items()}
        inputs = {name: at for name, at in before.sealed_inputs.items() if name in there}
        for source, group in groupby(fresh, key=lambda file: file.source):
            own = list(group)
            rows, taken = self._rows_of(own, marks.setdefault(source, {}))
            inputs |= taken
            table = in_order(rows)
            self._report.rows += table.num_rows
            self._with_days(source, table)
            partitions = max(file.partition for file in own) + 1
            sources[source] = _source_entry(source, sources.get(source), partitions, live)
        cleared = clear_files(blobs, [entry for entry in self._files if entry in before.files], self._erasures)
        files = tuple(cleared.get(entry.name, entry) for entry in self._files)
        self._report.files_redacted = sum(one.name != name for name, one in cleared.items())
        self._report.erasures = self._erasures.count - (before.erasures.count if before.erasures else 0)
        erasures = self._erasures.write(blobs)
        # Only what lay there before: who writes beside this compaction fails from the move of the manifest on.
        gone = lay_there - {entry.name for entry in files} - {erasures.name}
        gone |= there & {*self._holding, *self._held_before()}
        # An ingest that failed and runs again gives its files the same names: they go now or not at all.
        history = {name for name in gone if name.startswith(HISTORY_FOLDER)} - {entry.name for entry in before.files}
        after = LakeManifest(
            version=before.version + 1,
            shop=before.shop,
            sources=tuple(sources.values()),
            files=files,
            marks=marks,
            sealed_inputs=inputs,
            left_over=tuple(sorted(gone - history)),
            erasures=erasures,
        )
        write_manifest(blobs, after)
        self._report.version = after.version
        _delete(blobs, sorted(gone))
        return after

    def _held_before(self) -> Iterator[str]:
        """Sealed files taken in earlier that are kept for a while and hold somebody who is erased now."""
        if not any(self._erasures.touch(entry) for entry in self._before.files):
            return
        for name in self._before.sealed_inputs:
            try:
                rows = read_sealed(self._blobs, name)
            except FileNotFoundError:
                continue
            if self._holds(rows):
                yield name

    def _holds(self, rows: Sequence[LandingRow]) -> bool:
        return bool(redact(table_of_landing(rows), self._erasures.redaction)[1].any())

    def _rows_of(
        self, sealed: Sequence[SealedFile], marks: dict[str, tuple[int, int]]
    ) -> tuple[list[pa.Table], dict[str, int]]:
        """The rows beyond the manifest's marks as tables, redacted, and each file's last enqueued_at; moves `marks`."""
        tables, taken = [], dict[str, int]()
        with progress(f"compacting {sealed[0].source}", len(sealed), "files") as advance:
            for file in sealed:
                rows = read_sealed(self._blobs, file.name)
                taken[file.name] = rows[-1].enqueued_at
                beyond = list(_beyond(rows, self._before.mark(file.source, file.partition)))
                table, gone = redact(table_of_landing(beyond), self._erasures.redaction)
                tables.append(table)
                if gone.any() or (len(beyond) < len(rows) and self._holds(rows)):
                    self._holding.append(file.name)
                key = str(file.partition)
                if key not in marks or file.last > marks[key][0]:
                    marks[key] = (file.last, rows[-1].enqueued_at)
                advance(1)
        return tables, taken

    def _with_days(self, source: str, rows: pa.Table) -> None:
        """Bring the new rows' days into the files; a day's small files become one with its new rows."""
        days = rows.column("enqueued_at").to_numpy() // DAY_MS
        for day in np.unique(days):
            text = day_text(int(day) * DAY_MS)
            small = [one for one in self._files if (one.source, one.day) == (source, text) and one.rows < SMALL_ROWS]
            held = [redact(read_file(self._blobs, entry), self._erasures.redaction)[0] for entry in small]
            merged = in_order([*held, rows.filter(pa.array(days == day))])
            name = partial("{}{}/day={}/{}.parquet".format, DAYS_FOLDER, source, text)
            written = write_file(self._blobs, name, source, text, merged)
            written = msgspec.structs.replace(written, cleared=self._erasures.count)
            self._files = (*(entry for entry in self._files if entry not in small), written)
            self._report.days.add(text)
            self._report.files_written += 1
            self._report.files_merged += len(small)


def _delete(blobs: BlobStore, names: Iterable[str]) -> None:
    for name in names:
        blobs.delete(name)


def _beyond(rows: Iterable[LandingRow], mark: Mark | None) -> Iterator[LandingRow]:
    for row in rows:
        if mark is None or end_of(row) > mark.sequence:
            yield row
        elif (
            row.verdict is not Verdict.SKIPPED and row.sequence == mark.sequence and row.enqueued_at != mark.enqueued_at
        ):
            raise StreamRecreated(
                f"{row.source}/{row.partition} has sequence {row.sequence} with two enqueued_at: the broker's stream "
                "was made anew; give the new stream another EVENT_SOURCE"
            )


def _source_entry(name: str, held: SourceEntry | None, partitions: int, live: EventSource | None) -> SourceEntry:
    if live is not None and live.name == name:
        before = held.partition_counts if held is not None and held.ours else ()
        counts = tuple(dict.fromkeys((*before, *live.partition_counts)))
        return SourceEntry(name=name, partition_counts=counts, ours=live.ours)
    if held is not None and (held.ours or partitions <= max(held.partition_counts)):
        return held
    return SourceEntry(name=name, partition_counts=(partitions,), ours=False)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run one compaction of a shop's folder and print its totals."""
    parser = argparse.ArgumentParser(
        prog="python -m batch.compact_lake",
        description="Turn the lake's sealed files into Parquet, one folder a UTC day. Safe to stop and to run again.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the shop's folder")
    parser.add_argument(
        "--event-source", default="live-1", metavar="NAME", help="the running shop's event source (default: live-1)"
    )
    parser.add_argument(
        "--partition-count", type=int, default=4, metavar="P", help="its number of partitions (default: 4)"
    )
    arguments = parser.parse_args(argv)
    if not arguments.data.is_dir():
        raise ConfigurationError(f"{arguments.data} is no folder; ingest or generate a shop first")
    if arguments.partition_count < 1:
        raise ConfigurationError("--partition-count must be 1 or more")
    live = EventSource(arguments.event_source, (arguments.partition_count,))
    key_of = keyed_with(Settings.from_environment(os.environ).user_key_secret)
    blobs, now = FolderBlobStore(arguments.data), int(time.time() * 1000)
    blobs.delete_unfinished(now - _KEEP_SEALED_MS)
    report = compact(blobs, live, key_of=key_of)
    done = report.sealed_files or report.files_redacted
    print(f"lake compacted: {report}" if done else f"nothing new in the lake: {report}")
    redacted = bool(report.erasures or report.files_redacted)
    if lines := clear_beside_lake(blobs, key_of, now, redacted=redacted):
        print(f"{lines:,} exposures went with their users")
    if settled := settle_receipts(blobs, ("lake", "sealed_files", "exposures"), now):
        print(f"{settled:,} open receipts of erasures say so")
    return 0


if __name__ == "__main__":
    sys.exit(main())
