"""The backfill as one Spark job: read, bring each entity's rows together in log order, fold, write from the tasks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from feature_jobs.load_shards import LoadTask
from shared.adapters.spark_process import task_progress

ROWS_A_TASK: Final = 500_000
"""Rows that one task folds; Spark sorts them, and spills what does not fit."""

_ROWS: Final = (
    "kind tinyint, partition int, sequence bigint, enqueued_at bigint, event_id string, event_type string, "
    "occurred_at bigint, user_id string, item_id string, session_id string, quantity int, price_cents bigint, "
    "recommendation_id string, context string, changes string"
)
_COUNTS: Final = "partition int, kind tinyint, shards bigint"

Batches = Iterator[pa.RecordBatch]


def load_with_spark(spark: SparkSession, task: LoadTask) -> pa.Table:
    """Load what the task's plan names and return the tasks' counts (`COUNTS_SCHEMA`).

    Nothing of users or items passes through the driver.
    """
    files = len(task.files())
    cores = int(spark.sparkContext.defaultParallelism)
    places = spark.range(0, files, 1, numPartitions=min(files, 8 * cores))
    rows = places.mapInArrow(_reader(task), _ROWS)
    folded = _by_entity(rows, max(2 * cores, 2 * task.plan.rows // ROWS_A_TASK))
    counts = folded.mapInArrow(_loader(task), _COUNTS)
    folder = (task.data / "spark" / "backfill").resolve()
    try:
        with task_progress(spark.sparkContext.statusTracker(), f"backfill {task.plan.source}"):
            counts.write.mode("overwrite").parquet(f"file://{folder}")
        return pa.concat_tables(pq.read_table(part) for part in _parts(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _by_entity(rows: DataFrame, tasks: int) -> DataFrame:
    """The rows of an entity in one partition, together and in sequence order.

    Sorting by two numbers costs Spark a third of sorting by the ids; where two entities share a key the fold keeps
    them apart.
    """
    entity = sql.when(sql.col("kind") == 0, sql.col("user_id")).otherwise(sql.col("item_id"))
    keyed = rows.withColumn("key", sql.xxhash64("kind", "partition", entity))
    return keyed.repartition(tasks, "key").sortWithinPartitions("key", "sequence")


def _reader(task: LoadTask) -> Callable[[Batches], Batches]:
    def rows(batches: Batches) -> Batches:
        files = task.files()
        for batch in batches:
            for place in batch.column(0).to_pylist():
                yield from task.read(files[place])

    return rows


def _loader(task: LoadTask) -> Callable[[Batches], Batches]:
    def loaded(batches: Batches) -> Batches:
        yield from task.load(batches)

    return loaded


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))
