"""The Spark session of feature jobs: the process's own where one runs already."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import SparkSession

from shared.adapters.spark_process import start_session


def spark_session(data: Path, master: str) -> SparkSession:
    """The session of this process, started by the first call. Raises ConfigurationError when no Java serves."""
    return SparkSession.getActiveSession() or start_session(SparkSession.builder, data, master)
