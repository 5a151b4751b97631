"""Reading the lake whole: the manifest's files and the sealed files not yet in it, one row a coordinate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import LakeConflict, StreamRecreated
from shared.ingest.lake_files import day_text, read_file
from shared.ingest.lake_manifest import LakeManifest, read_manifest
from shared.ingest.lake_sealed import end_of, not_yet_in, read_sealed, sealed_files
from shared.ingest.lake_table import COORDINATES, LAKE_SCHEMA, landing_of_table, table_of_landing
from shared.ports import BlobStore, LandingRow, Verdict

_READERS = 4
"""Files read at once: a remote store answers each in tens of milliseconds."""

_NEEDED = (*COORDINATES, "enqueued_at", "verdict")


def read_rows(
    blobs: BlobStore,
    *,
    columns: Sequence[str] | None = None,
    sources: Collection[str] | None = None,
    until_enqueued_at: int | None = None,
    since_enqueued_at: int | None = None,
    keep: Callable[[pa.Table], pa.Table] | None = None,
) -> pa.Table:
    """The lake's rows, each coordinate once, ordered by (source, partition, sequence).

    `columns` chooses among `LAKE_SCHEMA` (default all, returned in the schema's order); `until_enqueued_at` (epoch ms,
    included) is what was known at that instant, `since_enqueued_at` (included) leaves out what is older. `keep` is
    given each file's rows, with the chosen columns and the coordinates at least, and returns those to go on with.

    Raises:
        LakeConflict: a file of the manifest is gone or differs from its checksum.
        StreamRecreated: two rows of one coordinate disagree about enqueued_at.
    """
    wanted = LAKE_SCHEMA.names if columns is None else [name for name in LAKE_SCHEMA.names if name in columns]
    if columns is not None and len(wanted) != len(set(columns)):
        raise ValueError(f"the lake has no column {sorted(set(columns) - set(wanted))}; it has {LAKE_SCHEMA.names}")
    chosen = _Choice({*wanted, *_NEEDED}, sources, since_enqueued_at, until_enqueued_at, keep)
    table = _consistently(blobs, partial(_read, blobs, chosen))
    return table.select(wanted)


def read_range(blobs: BlobStore, source: str, partition: int, first: int, last: int) -> list[LandingRow]:
    """The lake's verdicts on the sequences `first` to `last` (both included) of one partition, ascending.

    A skipped range that reaches into them is among the answers, whole. Only files that hold such sequences are read.
    Raises as `read_rows`.
    """
    return _consistently(blobs, partial(_read_range, blobs, source, partition, (first, last)))


def in_order(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of all tables by (source, partition, sequence), the first of each coordinate.

    Tables that are ordered already, as files are, are cut into runs and not copied row by row.
    Raises StreamRecreated when rows of one coordinate disagree about enqueued_at.
    """
    table = pa.concat_tables(tables)
    if table.num_rows < 2:
        return table
    sources = table.column("source").combine_chunks().dictionary_encode()
    names = np.array(sources.dictionary.to_pylist())
    codes = np.argsort(np.argsort(names))[sources.indices.to_numpy()]
    partitions = table.column("partition").to_numpy()
    sequences = table.column("sequence").to_numpy()
    order = np.lexsort((sequences, partitions, codes))
    same = _repeats(order, codes, partitions, sequences)
    if same.any():
        at = table.column("enqueued_at").to_numpy()[order]
        skipped = pc.equal(table.column("verdict"), Verdict.SKIPPED.value).to_numpy()[order]
        differ = np.flatnonzero(same & (at[1:] != at[:-1]) & ~skipped[1:] & ~skipped[:-1])
        if len(differ):
            row = table.slice(int(order[differ[0]]), 1).to_pylist()[0]
            raise StreamRecreated(
                f"{row['source']}/{row['partition']} has sequence {row['sequence']} with two enqueued_at: the broker's "
                "stream was made anew; give the new stream another EVENT_SOURCE"
            )
        order = order[np.concatenate(([True], ~same))]
    return _taken(tables, table, order)


def _taken(tables: Sequence[pa.Table], table: pa.Table, order: npt.NDArray[np.int64]) -> pa.Table:
    """The rows of `table`, which is all `tables` in a row, in the order given."""
    starts = np.cumsum([0, *(piece.num_rows for piece in tables)])
    home = np.searchsorted(starts, order, side="right") - 1
    cuts = np.flatnonzero((np.diff(order) != 1) | (np.diff(home) != 0)) + 1
    if len(cuts) > len(order) // 20:
        return table.take(pa.array(order))
    runs = [
        tables[home[begin]].slice(int(order[begin] - starts[home[begin]]), int(end - begin))
        for begin, end in pairwise([0, *cuts.tolist(), len(order)])
    ]
    return pa.concat_tables(runs).combine_chunks()


def _repeats(order: npt.NDArray[np.int64], *keys: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    same = np.ones(len(order) - 1, dtype=np.bool_)
    for key in keys:
        ordered = key[order]
        same &= ordered[1:] == ordered[:-1]
    return same


def _consistently[T](blobs: BlobStore, read: Callable[[LakeManifest | None], T]) -> T:
    """Read what the manifest names; where a file goes because the manifest moved meanwhile, begin anew."""
    for _ in range(3):
        manifest = read_manifest(blobs)
        try:
            return read(manifest)
        except FileNotFoundError as error:
            after = read_manifest(blobs)
            if (after and after.version) == (manifest and manifest.version):
                raise LakeConflict(
                    f"the lake lacks a file it should have ({error}); restore it or ingest again"
                ) from error
    raise LakeConflict("the lake manifest moved three times while it was read; read again when the writers are done")


@dataclass(frozen=True, slots=True)
class _Choice:
    """What of the lake is wanted."""

    columns: set[str]
    sources: Collection[str] | None
    since: int | None
    until: int | None
    keep: Callable[[pa.Table], pa.Table] | None

    def may_hold(self, day: str) -> bool:
        """Whether a file of this day can hold wanted rows."""
        return (self.until is None or day <= day_text(self.until)) and (
            self.since is None or day >= day_text(self.since)
        )

    def rows(self, table: pa.Table) -> pa.Table:
        """The wanted rows of a file."""
        if self.until is not None:
            table = table.filter(pc.field("enqueued_at") <= self.until)
        if self.since is not None:
            table = table.filter(pc.field("enqueued_at") >= self.since)
        return table if self.keep is None else self.keep(table)


def _read(blobs: BlobStore, chosen: _Choice, manifest: LakeManifest | None) -> pa.Table:
    sources = chosen.sources
    entries = [
        entry
        for entry in (manifest.files if manifest else ())
        if (sources is None or entry.source in sources) and chosen.may_hold(entry.day)
    ]
    sealed = [file for file in not_yet_in(sealed_files(blobs), manifest) if sources is None or file.source in sources]
    schema = pa.schema([field for field in LAKE_SCHEMA if field.name in chosen.columns])
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(lambda entry: chosen.rows(read_file(blobs, entry, chosen.columns)), entries))
        rows = [row for found in pool.map(lambda file: read_sealed(blobs, file.name), sealed) for row in found]
    if rows:
        tables.append(chosen.rows(table_of_landing(rows).select(schema.names)))
    return in_order([schema.empty_table(), *tables])


def _read_range(
    blobs: BlobStore, source: str, partition: int, span: tuple[int, int], manifest: LakeManifest | None
) -> list[LandingRow]:
    first, last = span
    key = str(partition)
    tables = []
    for entry in manifest.files if manifest else ():
        if entry.source == source and key in entry.first and entry.first[key] <= last and entry.last[key] >= first:
            found = read_file(blobs, entry)
            end = pc.coalesce(pc.field("last_sequence"), pc.field("sequence"))
            tables.append(
                found.filter((pc.field("partition") == partition) & (pc.field("sequence") <= last) & (end >= first))
            )
    held = list(landing_of_table(in_order(tables))) if tables else []
    rows = {row.sequence: row for row in held}
    for file in not_yet_in(sealed_files(blobs, source, partition), manifest):
        if file.first <= last and file.last >= first:
            for row in read_sealed(blobs, file.name):
                if row.sequence <= last and end_of(row) >= first:
                    kept = rows.setdefault(row.sequence, row)
                    if kept.enqueued_at != row.enqueued_at and Verdict.SKIPPED not in {kept.verdict, row.verdict}:
                        raise StreamRecreated(f"{source}/{partition} has sequence {row.sequence} with two enqueued_at")
    return [rows[sequence] for sequence in sorted(rows)]
