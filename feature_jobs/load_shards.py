"""Rows of a lake to shards in Redis: what a task of the backfill does, in Spark or in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from feature_jobs.backfill_plan import LoadPlan, read_lake_file
from feature_jobs.fold_rows import ROW_COLUMNS, ROW_SCHEMA, FoldedShard, Kind, fold_rows, rows_of
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_load import LOAD_BATCH
from shared.adapters.redis_state import RedisStateStore
from shared.errors import LakeConflict
from shared.events import id_hash
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake_manifest import FileEntry
from shared.ingest.lake_sealed import SealedFile, end_of, read_sealed
from shared.ingest.lake_table import table_of_landing
from shared.ports import UserWrite

REDIS_TIMEOUT_MS: Final = 30_000

COUNTS_SCHEMA: Final = pa.schema([("partition", pa.int32()), ("kind", pa.int8()), ("shards", pa.int64())])
"""What a task says it loaded."""


@dataclass(frozen=True, slots=True)
class LoadTask:
    """All that a task needs; it travels to Spark's workers, the secret too."""

    data: Path
    plan: LoadPlan
    version: AnyVersion
    loader: str
    redis_url: str = field(repr=False)
    user_secret: str = field(repr=False)

    def files(self) -> Sequence[FileEntry | SealedFile]:
        """What there is to read."""
        return [*self.plan.files, *self.plan.sealed]

    def read(self, file: FileEntry | SealedFile) -> pa.Table:
        """A file's rows for the fold, `ROW_SCHEMA`. Raises LakeConflict."""
        table = _table_of(FolderBlobStore(self.data), file)
        return pa.concat_tables([ROW_SCHEMA.empty_table(), *rows_of(table, self.plan.marks, self.plan.erased)])

    def load(self, tables: Iterable[pa.Table]) -> pa.Table:
        """Fold tables of `ROW_SCHEMA`, none of which shares an entity with another, and write what they make.

        Returns how much it was, `COUNTS_SCHEMA`. Raises MarkMoved where another backfill took over, StateUnavailable
        when Redis does not answer.
        """
        counts: Counter[tuple[int, int]] = Counter()
        with connect(self.redis_url, timeout_ms=REDIS_TIMEOUT_MS) as client:
            buffers = _Buffers(self, RedisStateStore(client, self.user_secret))
            for table in tables:
                for one in fold_rows(table, self.version):
                    buffers.add(one)
                    counts[one.partition, one.kind] += 1
            buffers.flush()
        rows = [{"partition": partition, "kind": kind, "shards": n} for (partition, kind), n in sorted(counts.items())]
        return pa.Table.from_pylist(rows, schema=COUNTS_SCHEMA)


class _Buffers:
    """Shards that wait for their trip, by partition and kind."""

    def __init__(self, task: LoadTask, store: RedisStateStore) -> None:
        self._task = task
        self._store = store
        self._waiting: dict[tuple[int, Kind], list[FoldedShard]] = {}

    def add(self, shard: FoldedShard) -> None:
        place = shard.partition, shard.kind
        waiting = self._waiting.setdefault(place, [])
        waiting.append(shard)
        if len(waiting) >= LOAD_BATCH:
            self._write(*place)

    def flush(self) -> None:
        for place in sorted(self._waiting):
            self._write(*place)

    def _write(self, partition: int, kind: Kind) -> None:
        waiting = self._waiting.pop((partition, kind))
        users = {one.entity: one.shard for one in waiting if isinstance(one.shard, UserWrite)}
        others = {id_hash(one.entity): one.shard for one in waiting if isinstance(one.shard, bytes)}
        self._store.load(
            self._task.plan.source,
            partition,
            self._task.version.name,
            users=users,
            items=others if kind is Kind.ITEM else None,
            products=others if kind is Kind.PRODUCT else None,
            loader=self._task.loader,
        )


def _table_of(blobs: FolderBlobStore, file: FileEntry | SealedFile) -> pa.Table:
    if not isinstance(file, SealedFile):
        return read_lake_file(blobs, file, ROW_COLUMNS)
    try:
        rows = read_sealed(blobs, file.name)
    except FileNotFoundError as error:
        raise LakeConflict(f"{file.name} is gone: the lake was compacted meanwhile; run it again") from error
    reached = file.first - 1
    for row in rows:
        if row.sequence > reached + 1:
            raise LakeConflict(f"{file.name} lacks sequence {reached + 1}; restore it from the broker log")
        reached = end_of(row)
    return table_of_landing(rows).select(ROW_COLUMNS)
