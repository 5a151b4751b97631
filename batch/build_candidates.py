"""Stage: every user's nightly list and factor, as a Spark job that runs the request path's own code per user.

The lake's rows come together by user in log order; each task folds its users and asks retrieval, and what it makes
goes straight to Parquet: nothing about users passes through the driver.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from batch.catalog_snapshot import encode_entries, fold_catalog, load_item_ids
from batch.nightly_records import Night, records
from batch.published_lists import CANDIDATES_FOLDER, CandidatesSummary
from batch.spark import add_master_argument, parallelism, spark_path, spark_session, task_progress, write_parts
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.stage_folder import replace_folder
from shared.candidates.span import load_factors, load_source_params
from shared.cli import command
from shared.errors import ConfigurationError
from shared.ingest.erased_users import count_erasures
from shared.ingest.lake import LAKE_SCHEMA, LakeManifest, read_manifest
from shared.ingest.logged_events import logged_events
from shared.ports import Verdict
from shared.releases.lists import NightlyRecord

_SPARK_SCHEMA: Final = (
    "user_id string, newest_at bigint, actions_count bigint, "
    "indexes array<int>, scores array<float>, vector array<float>"
)
_ARROW_SCHEMA: Final = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("newest_at", pa.int64()),
        pa.field("actions_count", pa.int64()),
        pa.field("indexes", pa.list_(pa.int32())),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("vector", pa.list_(pa.float32())),
    ]
)
_USERS_AT_ONCE: Final = 1000


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write nightly/candidates of a shop's folder."""
    parser = argparse.ArgumentParser(prog="python -m batch.build_candidates", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    add_master_argument(parser)
    arguments = parser.parse_args(argv)
    build_candidates(spark_session(arguments.data, arguments.master), arguments.data.resolve())
    return 0


def build_candidates(spark: SparkSession, data: Path) -> CandidatesSummary:
    """Make the record of everyone with an action by the newest enqueued_at of the lake.

    Raises ConfigurationError when there is no lake or an earlier stage has not run.
    """
    started = perf_counter()
    blobs = FolderBlobStore(data)
    manifest = read_manifest(blobs)
    if manifest is None or not manifest.files:
        raise ConfigurationError(f"there is no lake under {data}; run batch.generate_shop or batch.ingest_events first")
    as_of = max(at for marks in manifest.marks.values() for _, at in marks.values())
    entries = fold_catalog(blobs, load_item_ids(data), as_of)
    shop = manifest.shop
    factors = load_factors(data, "all")
    if len(factors.factors) != len(entries):
        raise ConfigurationError(
            f"retrieval knows {len(factors.factors)} items, the shop has {len(entries)}; "
            "run the night from fit_retrieval"
        )
    in_memory = replace(factors, factors=np.array(factors.factors))
    params = load_source_params(data, "all")
    night = Night(encode_entries(entries), in_memory, as_of, shop.bought_window_days, shop.time_zone, params)
    users = _rows_by_user(spark, data, manifest)
    with replace_folder(data / CANDIDATES_FOLDER) as folder, task_progress(spark, "candidates"):
        write_parts(users.mapInArrow(_records_of(spark, night), _SPARK_SCHEMA), folder)
        count = sum(pq.read_metadata(part).num_rows for part in sorted(folder.glob("*.parquet")))
        summary = CandidatesSummary(as_of, count, count_erasures(manifest))
        (folder / "summary.json").write_bytes(msgspec.json.encode(summary))
    seconds = perf_counter() - started
    print(f"  lists of {count:,} users in {seconds:.1f} s ({count / seconds:,.0f} users/s)")
    return summary


def _rows_by_user(spark: SparkSession, data: Path, manifest: LakeManifest) -> DataFrame:
    """The accepted rows that name a user, each user's in one partition and in log order."""
    # Without the recursive look-up Spark would take the folders' day= for a column.
    files = [spark_path(data / entry.name) for entry in manifest.files]
    lake = spark.read.option("recursiveFileLookup", "true").parquet(*files).select(*LAKE_SCHEMA.names)
    rows = lake.where((sql.col("verdict") == Verdict.ACCEPTED.value) & sql.col("user_id").isNotNull())
    by_user = rows.repartition(parallelism(spark), "user_id")
    return by_user.sortWithinPartitions("user_id", "source", "partition", "sequence")


def _records_of(spark: SparkSession, night: Night) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    shared_night = spark.sparkContext.broadcast(night)

    def lists_of(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (logged for batch in batches for logged in logged_events(pa.Table.from_batches([batch])))
        made: list[tuple[str, NightlyRecord]] = []
        for one in records(shared_night.value, rows):
            made.append(one)
            if len(made) == _USERS_AT_ONCE:
                yield _batch_of(made)
                made = []
        if made:
            yield _batch_of(made)

    return lists_of


def _batch_of(made: Sequence[tuple[str, NightlyRecord]]) -> pa.RecordBatch:
    columns = [
        [user_id for user_id, _ in made],
        [record.newest_at for _, record in made],
        [record.actions_count for _, record in made],
        [record.indexes for _, record in made],
        [record.scores for _, record in made],
        [record.vector for _, record in made],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _ARROW_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_ARROW_SCHEMA)


if __name__ == "__main__":
    sys.exit(main())
