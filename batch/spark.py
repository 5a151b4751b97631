"""The Spark session: one a process, local unless told otherwise, quiet, its files below the shop's folder."""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pyspark.sql import DataFrame, SparkSession

from batch.java import spark_environment

DEFAULT_MASTER: Final = "local[*]"
# On one machine the Java side lives for a minute and mostly moves Arrow to Python: compiling it well costs more than it
# gives. Measured in docs/decisions/0006.
_SHORT_LIVED: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_REPORT_EVERY_S: Final = 3.0
_SILENT_AT_MOST_S: Final = 15.0
_GIB: Final = 1024**3
_ROOT: Final = Path(__file__).resolve().parents[1]

# What fails reaches the driver as an exception; logged as well it would be said three times, with Java's stacks.
_LOGGING: Final = """\
rootLogger.level = fatal
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = spark: %p %c{1}: %m%n%ex
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = fatal
logger.shutdown.name = org.apache.spark.util.ShutdownHookManager
logger.shutdown.level = off
"""


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

    Its temporary files and warehouse lie in `data`/spark. Workers run this Python and import this checkout. Raises
    ConfigurationError when no Java serves.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    scratch = (data / "spark").resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    logging = scratch / "log4j2.properties"
    logging.write_text(_LOGGING, encoding="utf-8")
    os.environ.update(spark_environment())
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(os.pathsep.join(paths).split(os.pathsep)))
    java_options = [f"-Dlog4j2.configurationFile={logging.as_uri()}"]
    if master.startswith("local"):
        java_options += _SHORT_LIVED
    settings = {
        "spark.driver.memory": f"{_driver_memory_gib()}g",
        "spark.driver.extraJavaOptions": " ".join(java_options),
        "spark.executorEnv.PYTHONPATH": os.environ["PYTHONPATH"],
        "spark.local.dir": str(scratch / "tmp"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.appName("recommndr").master(master)
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


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
    """While the block runs, say how many of the active stage's tasks are done.

    It looks every three seconds and prints when a task has ended, or when 15 seconds have passed in silence.
    """
    done = threading.Event()
    started = time.monotonic()

    def report() -> None:
        tracker = spark.sparkContext.statusTracker()
        said, said_s = (-1, -1), 0.0
        while not done.wait(_REPORT_EVERY_S):
            for stage_id in tracker.getActiveStageIds():
                stage = tracker.getStageInfo(stage_id)
                if stage is None:
                    continue
                seconds = time.monotonic() - started
                state = (stage_id, stage.numCompletedTasks)
                if state != said or seconds - said_s >= _SILENT_AT_MOST_S:
                    said, said_s = state, seconds
                    rate = 60 * stage.numCompletedTasks / seconds
                    print(
                        f"    {label}: {stage.numCompletedTasks} of {stage.numTasks} tasks after {seconds:.0f} s, "
                        f"{rate:.1f} a minute",
                        flush=True,
                    )

    reporter = threading.Thread(target=report, name="spark-progress", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()


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


def _driver_memory_gib() -> int:
    """A quarter of the machine's memory, 1 to 8 GiB: the Python workers need their share too."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(8, total // _GIB // 4))
