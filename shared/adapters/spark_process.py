"""How a Spark session of this project is set up: its Java, its workers' Python, its folders; and what it tells.

PySpark itself is not imported here: a stage gives its own builder and session.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, Self

from shared.adapters.java import spark_environment

DEFAULT_MASTER: Final = "local[*]"
# On one machine the Java side lives for minutes and mostly moves Arrow to Python: compiling it well costs more than it
# gives. Measured in docs/decisions/0006.
_SHORT_LIVED: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_REPORT_EVERY_S: Final = 3.0
_SILENT_AT_MOST_S: Final = 15.0
_GIB: Final = 1024**3
_ROOT: Final = Path(__file__).resolve().parents[2]

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


class Builder[Session](Protocol):
    """What is used of `SparkSession.builder`."""

    def appName(self, name: str) -> Self:  # noqa: N802 - PySpark's name
        """Name the application."""
        ...

    def master(self, master: str) -> Self:
        """Where it runs."""
        ...

    def config(self, key: str, value: Any) -> Self:  # noqa: ANN401 - as PySpark declares it
        """Set one option."""
        ...

    def getOrCreate(self) -> Session:  # noqa: N802 - PySpark's name
        """Start it."""
        ...


class StageTracker(Protocol):
    """What is used of `SparkContext.statusTracker()`."""

    def getActiveStageIds(self) -> Sequence[int]:  # noqa: N802 - PySpark's name
        """The stages that run now."""
        ...

    def getStageInfo(self, stageId: int) -> Any:  # noqa: N802, N803, ANN401 - PySpark's names and its tuple
        """`numTasks` and `numCompletedTasks` of one, or None."""
        ...


def start_session[Session](builder: Builder[Session], data: Path, master: str) -> Session:
    """Start this process's session.

    Its temporary files and warehouse lie in `data`/spark. Workers run this Python and import this checkout. Raises
    ConfigurationError when no Java serves.
    """
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
    builder = builder.appName("recommndr").master(master)
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


@contextmanager
def task_progress(tracker: StageTracker, label: str) -> Iterator[None]:
    """While the block runs, say how many of the active stage's tasks are done.

    It looks every three seconds and prints when a task has ended, or when 15 seconds have passed in silence.
    """
    done = threading.Event()
    started = time.monotonic()

    def report() -> None:
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
                    print(  # noqa: T201 - only command lines start a session, and they talk to their user
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


def _driver_memory_gib() -> int:
    """A quarter of the machine's memory, 1 to 8 GiB: the Python workers need their share too."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(8, total // _GIB // 4))
