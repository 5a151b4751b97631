"""Compact the lake: sealed files become Parquet by UTC day of enqueued_at, behind one write of the manifest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from batch.progress import progress
from shared.adapters.folder_blob import FolderBlobStore
from shared.cli import command
from shared.errors import ConfigurationError, StreamRecreated
from shared.events import EventSource
from shared.ingest.lake_files import DAY_MS, day_text, read_file, write_file
from shared.ingest.lake_manifest import (
    FileEntry,
    LakeManifest,
    ShopSettings,
    SourceEntry,
    read_manifest,
    write_manifest,
)
from shared.ingest.lake_reading import in_order
from shared.ingest.lake_sealed import SEALED_FOLDER, SealedFile, end_of, read_sealed, sealed_files
from shared.ingest.lake_table import table_of_landing
from shared.ports import BlobStore, LandingRow, Mark, Verdict

DAYS_FOLDER = "lake/days/"
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
    sealed_deleted: int = 0
    version: int = 0
    days: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return (
            f"{self.rows:,} new rows from {self.sealed_files:,} sealed files over {len(self.days)} days, "
            f"{self.files_written} Parquet files written, {self.files_merged} merged, "
            f"{self.sealed_deleted:,} sealed files deleted; lake manifest version {self.version}"
        )


def compact(blobs: BlobStore, live: EventSource | None = None) -> Compaction:
    """Take every sealed file into Parquet, move the manifest once, then delete what a day ago was taken in.

    `live` says how the running source is partitioned; another source new to the lake counts as foreign, with as many
    partitions as were seen. Running it again, or after a kill at any moment, ends in the same rows.

    Raises:
        StreamRecreated: a sequence stands in the lake with another enqueued_at.
        LakeConflict: another writer moved the manifest meanwhile; nothing was changed.
        CorruptRecord: a sealed file is damaged.
    """
    before = read_manifest(blobs) or LakeManifest(version=0, shop=ShopSettings())
    fresh = [file for file in sealed_files(blobs) if file.name not in before.sealed_inputs]
    report = Compaction(sealed_files=len(fresh), version=before.version)
    after = _take_in(blobs, before, fresh, live, report) if fresh else before
    newest = max((at for marks in after.marks.values() for _, at in marks.values()), default=0)
    for name, last_at in before.sealed_inputs.items():
        if newest - last_at > _KEEP_SEALED_MS:
            blobs.delete(name)
            report.sealed_deleted += 1
    return report


def _take_in(
    blobs: BlobStore, before: LakeManifest, fresh: Sequence[SealedFile], live: EventSource | None, report: Compaction
) -> LakeManifest:
    """Write the day files of the fresh sealed files and move the manifest to them."""
    left_over = set(blobs.names(DAYS_FOLDER))
    there = set(blobs.names(SEALED_FOLDER))
    sources = {entry.name: entry for entry in before.sources}
    marks = {source: dict(held) for source, held in before.marks.items()}
    inputs = {name: at for name, at in before.sealed_inputs.items() if name in there}
    files = before.files
    for source, group in groupby(fresh, key=lambda file: file.source):
        own = list(group)
        rows, taken = _rows_of(blobs, own, before, marks.setdefault(source, {}))
        inputs |= taken
        table = in_order(rows)
        report.rows += table.num_rows
        files = _with_days(blobs, source, table, files, report)
        partitions = max(file.partition for file in own) + 1
        sources[source] = _source_entry(source, sources.get(source), partitions, live)
    after = LakeManifest(
        version=before.version + 1,
        shop=before.shop,
        sources=tuple(sources.values()),
        files=files,
        marks=marks,
        sealed_inputs=inputs,
    )
    write_manifest(blobs, after)
    report.version = after.version
    # Only after the manifest moved, and only what lay there before: a compaction beside this one fails from here on.
    for name in left_over - {entry.name for entry in after.files}:
        blobs.delete(name)
    return after


def _rows_of(
    blobs: BlobStore, sealed: Sequence[SealedFile], before: LakeManifest, marks: dict[str, tuple[int, int]]
) -> tuple[list[pa.Table], dict[str, int]]:
    """The rows beyond the manifest's marks as tables, and each file's last enqueued_at; moves `marks` along."""
    tables, taken = [], dict[str, int]()
    with progress(f"compacting {sealed[0].source}", len(sealed), "files") as advance:
        for file in sealed:
            rows = read_sealed(blobs, file.name)
            taken[file.name] = rows[-1].enqueued_at
            tables.append(table_of_landing(_beyond(rows, before.mark(file.source, file.partition))))
            key = str(file.partition)
            if key not in marks or file.last > marks[key][0]:
                marks[key] = (file.last, rows[-1].enqueued_at)
            advance(1)
    return tables, taken


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


def _with_days(
    blobs: BlobStore, source: str, rows: pa.Table, files: tuple[FileEntry, ...], report: Compaction
) -> tuple[FileEntry, ...]:
    """The files of the manifest with the new rows' days in them; a day's small files become one with its new rows."""
    days = rows.column("enqueued_at").to_numpy() // DAY_MS
    for day in np.unique(days):
        text = day_text(int(day) * DAY_MS)
        small = [entry for entry in files if (entry.source, entry.day) == (source, text) and entry.rows < SMALL_ROWS]
        merged = in_order([*(read_file(blobs, entry) for entry in small), rows.filter(pa.array(days == day))])
        name = partial("{}{}/day={}/{}.parquet".format, DAYS_FOLDER, source, text)
        written = write_file(blobs, name, source, text, merged)
        files = (*(entry for entry in files if entry not in small), written)
        report.days.add(text)
        report.files_written += 1
        report.files_merged += len(small)
    return files


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
    report = compact(FolderBlobStore(arguments.data), live)
    print(f"lake compacted: {report}" if report.sealed_files else f"nothing new in the lake: {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
