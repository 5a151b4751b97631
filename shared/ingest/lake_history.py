"""Publishing ingested history: numbering its rows, writing its day files, moving the manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import ConfigurationError
from shared.events import EventType
from shared.ingest.lake_files import DAY_MS, day_text, write_file
from shared.ingest.lake_manifest import (
    FileEntry,
    LakeManifest,
    ShopSettings,
    SourceEntry,
    read_manifest,
    write_manifest,
)
from shared.ingest.lake_sealed import SEALED_FOLDER
from shared.ingest.lake_table import EVENT_SCHEMA, LAKE_SCHEMA
from shared.ingest.partitioning import partitions_of_keys
from shared.ports import BlobStore, Verdict

HISTORY_FOLDER = "lake/history/"
SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def publish_history(  # noqa: PLR0917 - the order is the contract with generators and loaders
    blobs: BlobStore,
    source_name: str,
    partition_count: int,
    shop: ShopSettings,
    tables: Iterable[pa.Table],
    shift_weeks: int = 0,
) -> LakeManifest:
    """Number the rows, write one file a UTC day, then move the manifest to them; older history goes afterwards.

    `tables` hold unnumbered rows (`EVENT_SCHEMA`) in time order, usually a day each: occurred_at may not fall from
    row to row or table to table. Each row is accepted with enqueued_at = occurred_at, in the partition of its key,
    numbered from 0 in each partition. Where the manifest holds this source already nothing is written but changed
    shop settings. A crash at any moment leaves the old history or the new one.

    Raises:
        ConfigurationError: the source's name is none, or it stands with another number of partitions.
        ValueError: rows out of time order, or without the key that chooses their partition.
        LakeConflict: another writer moved the manifest meanwhile; nothing was published.
    """
    if not SOURCE_NAME.fullmatch(source_name):
        raise ConfigurationError(f"{source_name!r} is no source name: use {SOURCE_NAME.pattern}")
    before = read_manifest(blobs) or LakeManifest(version=0, shop=shop)
    stands = before.source(source_name)
    if stands is not None:
        if stands.partition_counts != (partition_count,):
            raise ConfigurationError(
                f"{source_name} is in the lake with {stands.partition_counts} partitions, not {partition_count}: "
                "give the source another name, or ingest with the old number"
            )
        return _with_shop(blobs, before, shop)
    stale = [name for name in blobs.names(HISTORY_FOLDER) if not name.startswith(f"{HISTORY_FOLDER}{source_name}/")]
    numbering = _Numbering(source_name, partition_count)
    files = tuple(_write_day(blobs, source_name, day, numbering.number(rows)) for day, rows in _by_day(tables))
    gone = {entry.name for entry in before.history()}
    entry = SourceEntry(name=source_name, partition_counts=(partition_count,), kind="history", shift_weeks=shift_weeks)
    after = msgspec.structs.replace(
        before,
        version=before.version + 1,
        shop=shop,
        sources=(entry, *(kept for kept in before.sources if kept.name not in gone)),
        files=(*files, *(kept for kept in before.files if kept.source not in gone)),
        marks={name: marks for name, marks in before.marks.items() if name not in gone}
        | {source_name: numbering.marks()},
        left_over=tuple(name for name in before.left_over if not name.startswith(HISTORY_FOLDER)),
    )
    write_manifest(blobs, after)
    # Erasures were appended to the log of what is replaced; alone they would make a source of their own.
    stale += [name for source in sorted(gone) for name in blobs.names(f"{SEALED_FOLDER}{source}/")]
    stale += sorted(set(before.left_over) - {*after.left_over, *stale, *(file.name for file in files)})
    for name in stale:
        blobs.delete(name)
    return after


def _with_shop(blobs: BlobStore, before: LakeManifest, shop: ShopSettings) -> LakeManifest:
    if before.shop == shop:
        return before
    after = msgspec.structs.replace(before, version=before.version + 1, shop=shop)
    write_manifest(blobs, after)
    return after


@dataclass(slots=True)
class _Numbering:
    """Gives every row its partition and its place in it; carries on from table to table."""

    source: str
    partition_count: int
    next_sequence: npt.NDArray[np.int64] = field(init=False)
    last_at: npt.NDArray[np.int64] = field(init=False)
    newest_at: int = -(2**63)

    def __post_init__(self) -> None:
        self.next_sequence = np.zeros(self.partition_count, dtype=np.int64)
        self.last_at = np.zeros(self.partition_count, dtype=np.int64)

    def number(self, rows: pa.Table) -> pa.Table:
        """Rows of `EVENT_SCHEMA` as rows of `LAKE_SCHEMA`, ordered by (partition, sequence)."""
        at = rows.column("occurred_at").to_numpy()
        if at[0] < self.newest_at or np.any(np.diff(at) < 0):
            raise ValueError("history must be in the order of occurred_at; sort it before publishing")
        self.newest_at = int(at[-1])
        partitions = self._partitions(rows)
        sequences = np.empty(len(at), dtype=np.int64)
        for partition in np.unique(partitions):
            places = np.flatnonzero(partitions == partition)
            start = self.next_sequence[partition]
            sequences[places] = np.arange(start, start + len(places))
            self.next_sequence[partition] += len(places)
            self.last_at[partition] = at[places[-1]]
        size = len(at)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            "source": pa.repeat(self.source, size),
            "partition": pa.array(partitions, pa.int32()),
            "sequence": pa.array(sequences),
            "enqueued_at": rows.column("occurred_at"),
            "verdict": pa.repeat(Verdict.ACCEPTED.value, size),
            "reason": pa.nulls(size, pa.string()),
            "last_sequence": pa.nulls(size, pa.int64()),
            "body": pa.nulls(size, pa.binary()),
        } | {name: rows.column(name) for name in EVENT_SCHEMA.names}
        table = pa.table([columns[name] for name in LAKE_SCHEMA.names], schema=LAKE_SCHEMA)
        return table.take(pa.array(np.argsort(partitions, kind="stable")))

    def _partitions(self, rows: pa.Table) -> npt.NDArray[np.int32]:
        of_item = pc.equal(rows.column("event_type"), EventType.ITEM_UPDATED.value)
        keys = pc.if_else(of_item, rows.column("item_id"), rows.column("user_id"))
        if keys.null_count:
            raise ValueError("a history row lacks its key: item_id for item_updated, user_id for all others")
        coded = keys.combine_chunks().dictionary_encode()
        unique = partitions_of_keys(coded.dictionary.to_pylist(), self.partition_count)
        indices: npt.NDArray[np.int32] = coded.indices.to_numpy()
        return unique[indices]

    def marks(self) -> dict[str, tuple[int, int]]:
        """(last sequence, its enqueued_at) of every partition that got a row."""
        return {
            str(partition): (int(count) - 1, int(self.last_at[partition]))
            for partition, count in enumerate(self.next_sequence)
            if count
        }


def _by_day(tables: Iterable[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    """The rows by UTC day number, whatever days the tables came in."""
    day, pieces = 0, list[pa.Table]()
    for table in tables:
        rows = table.select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA)
        days = rows.column("occurred_at").to_numpy() // DAY_MS
        edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
        for start, end in pairwise(edges):
            if start == end:
                continue
            if pieces and days[start] != day:
                yield day, pa.concat_tables(pieces)
                pieces = []
            day = int(days[start])
            pieces.append(rows.slice(start, end - start))
    if pieces:
        yield day, pa.concat_tables(pieces)


def _write_day(blobs: BlobStore, source: str, day: int, rows: pa.Table) -> FileEntry:
    text = day_text(day * DAY_MS)
    return write_file(blobs, f"{HISTORY_FOLDER}{source}/day={text}.parquet", source, text, rows)
