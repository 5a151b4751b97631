"""The Spark session of the nightly stages: one a process, local unless told otherwise."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from shared.adapters import spark_process
from shared.adapters.spark_process import DEFAULT_MASTER, start_session


def add_master_argument(parser: argparse.ArgumentParser) -> None:
    """Give a Spark stage its `--master`."""
    parser.add_argument(
        "--master",
        default=DEFAULT_MASTER,
        metavar="URL",
        help="Spark master of the first session (default %(default)s)",
    )


def spark_session(data: Path, master: str = DEFAULT_MASTER) -> SparkSession:
    """The session of this process, started by the first call; later calls get the same one whatever they ask for.

    See `start_session`. Raises ConfigurationError when no Java serves.
    """
    return SparkSession.getActiveSession() or start_session(SparkSession.builder, data, master)


def stop_session() -> None:
    """Stop this process's session, if there is one; the next call of `spark_session` starts another."""
    active = SparkSession.getActiveSession()
    if active is not None:
        active.stop()


def parallelism(spark: SparkSession) -> int:
    """How many tasks a stage should have: two for each core, so that a slow one does not hold up the rest."""
    return 2 * int(spark.sparkContext.defaultParallelism)


@contextmanager
def task_progress(spark: SparkSession, label: str) -> Iterator[None]:
    """While the block runs, say how many of the active stage's tasks are done."""
    with spark_process.task_progress(spark.sparkContext.statusTracker(), label):
        yield


def write_parts(frame: DataFrame, folder: Path, by: Sequence[str] = ()) -> None:
    """Write a frame into an empty folder as part-00000.parquet and so on, and nothing else.

    With `by` there is a folder column=value/ for each value of each of these columns, nested, which then stand in the
    folders' names alone. Spark names its files at random and adds checksums; equal frames here make equal folders.
    """
    frame.write.mode("overwrite").partitionBy(*by).parquet(spark_path(folder))
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.suffix == ".parquet":
            path.rename(path.with_name(f"{path.name[: len('part-00000')]}.parquet"))
        else:
            path.unlink()


def spark_path(path: Path) -> str:
    """A local path as Spark takes it: with its scheme, and not percent-encoded."""
    return f"file://{path.resolve()}"
