"""The backfill as one Spark job: read the files, bring each entity's rows together, fold them, write from the tasks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from feature_jobs.fold_rows import in_buckets
from feature_jobs.load_shards import LoadTask
from shared.adapters.spark_process import task_progress

ROWS_A_BUCKET: Final = 250_000
"""Events of one bucket, about: each is a row of its user and one of its item, and a task holds a bucket's rows."""

_PACKED_TYPE: Final = "bucket int, rows binary"
_COUNTS_TYPE: Final = "partition int, kind tinyint, shards bigint"

Batches = Iterator[pa.RecordBatch]


def load_with_spark(spark: SparkSession, task: LoadTask) -> pa.Table:
    """Load what the task's plan names and return the tasks' counts (`COUNTS_SCHEMA`).

    Rows travel packed: what Spark moves is one Arrow message for each file and bucket, not one row for each event,
    which cost it more than the fold itself. Nothing of users or items passes through the driver.
    """
    files = len(task.files())
    cores = int(spark.sparkContext.defaultParallelism)
    buckets = max(2 * cores, task.plan.rows // ROWS_A_BUCKET)
    places = spark.range(0, files, 1, numPartitions=min(files, 8 * cores))
    packed = places.mapInArrow(_reader(task, buckets), _PACKED_TYPE).repartitionById(buckets, "bucket")
    counts = packed.mapInArrow(_loader(task), _COUNTS_TYPE)
    folder = (task.data / "spark" / "backfill").resolve()
    try:
        with task_progress(spark.sparkContext.statusTracker(), f"backfill {task.plan.source}"):
            counts.write.mode("overwrite").parquet(f"file://{folder}")
        return pa.concat_tables([pq.read_table(part) for part in sorted(folder.glob("*.parquet"))])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reader(task: LoadTask, buckets: int) -> Callable[[Batches], Batches]:
    """Places of files to the files' rows, a message for each bucket."""

    def packed(batches: Batches) -> Batches:
        files = task.files()
        for batch in batches:
            for place in batch.column(0).to_pylist():
                found = [(bucket, _pack(rows)) for bucket, rows in in_buckets(task.read(files[place]), buckets)]
                if found:
                    buckets_of, messages = zip(*found, strict=True)
                    yield pa.record_batch(
                        {"bucket": pa.array(buckets_of, pa.int32()), "rows": pa.array(messages, pa.binary())}
                    )

    return packed


def _loader(task: LoadTask) -> Callable[[Batches], Batches]:
    """All messages of one bucket to the counts of what they made."""

    def loaded(batches: Batches) -> Batches:
        rows = [_unpack(one) for batch in batches for one in batch.column(1)]
        if rows:
            yield from task.load([pa.concat_tables(rows)]).to_batches()

    return loaded


def _pack(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _unpack(message: pa.Scalar) -> pa.Table:
    return pa.ipc.open_stream(message.as_buffer()).read_all()
