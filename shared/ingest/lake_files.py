"""Parquet files of the lake: one source, one UTC day of enqueued_at, sorted by partition and sequence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import LakeConflict
from shared.events import from_ms
from shared.ingest.lake_manifest import FileEntry
from shared.ingest.lake_table import LAKE_SCHEMA
from shared.ports import BlobStore

DAY_MS = 24 * 3600 * 1000

_REPEATING = ["source", "verdict", "reason", "event_type", "user_id", "item_id", "session_id"]
"""Event ids do not repeat: a dictionary of them, or a stronger codec than LZ4, costs a reader twice the time."""


def day_text(at: int) -> str:
    """The UTC day of an instant (epoch ms) as YYYY-MM-DD."""
    return from_ms(at).date().isoformat()


def write_file(blobs: BlobStore, name: str | Callable[[str], str], source: str, day: str, rows: pa.Table) -> FileEntry:
    """Write rows of `LAKE_SCHEMA`, ordered by (partition, sequence), and describe the file.

    `name` may be a function of the SHA-256 of the file's bytes.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="lz4", use_dictionary=_REPEATING, write_statistics=["enqueued_at"])
    data = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(data).hexdigest()
    path = name if isinstance(name, str) else name(digest)
    blobs.write(path, data)
    first, last = _spans(rows)
    return FileEntry(name=path, source=source, day=day, first=first, last=last, rows=rows.num_rows, sha256=digest)


def read_file(
    blobs: BlobStore, entry: FileEntry, columns: Collection[str] | None = None, *, as_codes: Collection[str] = ()
) -> pa.Table:
    """Some or all columns of a file, in the order and types of `LAKE_SCHEMA`.

    Columns of text named in `as_codes` come as dictionaries, as they lie in the file, which takes a third of the time.
    Raises FileNotFoundError when it is gone, LakeConflict when its bytes are not the ones the manifest names.
    """
    data = blobs.read(entry.name)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise LakeConflict(f"{entry.name} differs from its checksum in the lake manifest; restore it or ingest again")
    names = LAKE_SCHEMA.names if columns is None else [name for name in LAKE_SCHEMA.names if name in columns]
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(as_codes))
    table = file.read(columns=names, use_threads=False)
    if as_codes:
        return table
    schema = pa.schema([LAKE_SCHEMA.field(name) for name in names])
    return table if table.schema.equals(schema) else table.select(names).cast(schema)


def _spans(rows: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    """The lowest and highest sequence of each partition; a skipped range reaches to its end."""
    partitions = rows.column("partition").to_numpy()
    sequences = rows.column("sequence").to_numpy()
    ends = np.where(
        rows.column("last_sequence").is_null().to_numpy(zero_copy_only=False),
        sequences,
        rows.column("last_sequence").fill_null(-1).to_numpy(),
    )
    first, last = dict[str, int](), dict[str, int]()
    for partition in np.unique(partitions):
        here = partitions == partition
        first[str(partition)] = int(sequences[here].min())
        last[str(partition)] = int(ends[here].max())
    return first, last
