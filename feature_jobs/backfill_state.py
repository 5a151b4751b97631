"""Stage: the lake's events folded into the feature state, for every partition that has no mark yet.

It runs the stream's own fold, an entity at a time, so a customer of last year stands in Redis exactly as if each of her
events had come through the broker. A small lake is folded in this process, a large one by Spark.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from feature_jobs.backfill_plan import LoadPlan, plan_load
from feature_jobs.fold_rows import Kind
from feature_jobs.load_shards import LoadTask
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_backfill import HistorySources
from shared.adapters.redis_connection import connect
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.redis_versions import StateVersions
from shared.adapters.spark_process import DEFAULT_MASTER
from shared.adapters.user_keys import keyed_with
from shared.cli import command
from shared.errors import ConfigurationError
from shared.ingest.erased_users import erased_users
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake import LakeManifest, read_manifest
from shared.ingest.lake_sealed import sealed_files
from shared.ingest.state_versions import CURRENT_VERSION, described_version, needed_versions
from shared.releases.manifest import read_manifest as read_release
from shared.settings import Settings

Engine = Literal["auto", "local", "spark"]
ENGINES: Final[tuple[Engine, ...]] = ("auto", "local", "spark")
SPARK_FROM_ROWS: Final = 1_000_000
"""From here on Spark is faster in spite of its start; measured in docs/decisions/0012."""
_REDIS_TIMEOUT_MS: Final = 30_000


def backfill_state(
    data: Path,
    redis_url: str,
    user_secret: str,
    version: AnyVersion = CURRENT_VERSION,
    *,
    engine: Engine = "auto",
    master: str = DEFAULT_MASTER,
) -> int:
    """Load every (source, partition) of the lake below `data` that has no mark of `version`; return how many.

    The marks of a source's partitions are written when all of its shards are. Ingested sources that the lake no
    longer has expire within a week.

    Raises:
        ConfigurationError: there is no lake, or no Java for Spark.
        InfrastructureFault: Redis does not answer.
        LakeConflict: the lake changed while it was read: run it again.
        MarkMoved: another backfill of the same partitions began meanwhile and goes on.
    """
    blobs = FolderBlobStore(data)
    manifest = read_manifest(blobs)
    if manifest is None:
        raise ConfigurationError(f"there is no lake under {data}; run batch.generate_shop or batch.ingest_events first")
    history = [entry.name for entry in manifest.history()]
    sources = sorted({*manifest.marks, *(file.source for file in sealed_files(blobs))})
    erased = erased_users(blobs, manifest, keyed_with(user_secret))
    with connect(redis_url, timeout_ms=_REDIS_TIMEOUT_MS) as client:
        register, store = HistorySources(client), RedisStateStore(client, user_secret)
        loaded = 0
        for source in sources:
            if source in history:
                register.begin(source)
            missing = _missing(blobs, manifest, source, store, version)
            if missing:
                plan = plan_load(blobs, manifest, source, missing, erased)
                task = LoadTask(data.resolve(), plan, version, secrets.token_hex(8), redis_url, user_secret)
                loaded += _load(task, store, engine, master)
        for gone in register.retire_all_but(history):
            print(f"  {gone} is no longer in the lake: its state expires within a week")
    return loaded


def _missing(
    blobs: FolderBlobStore, manifest: LakeManifest, source: str, store: RedisStateStore, version: AnyVersion
) -> list[int]:
    partitions = {int(one) for one in manifest.marks.get(source, {})}
    partitions |= {file.partition for file in sealed_files(blobs, source)}
    missing = [one for one in sorted(partitions) if store.marks(source, one, version.name)[1] is None]
    if not missing:
        print(f"  {source}: all {len(partitions)} partitions have their mark, nothing to load", flush=True)
    return missing


def _load(task: LoadTask, store: RedisStateStore, engine: Engine, master: str) -> int:
    """Load a source's partitions and then write their marks; return how many there were."""
    plan, version = task.plan, task.version.name
    if not plan.marks:
        return 0
    chosen = ("spark" if plan.rows >= SPARK_FROM_ROWS else "local") if engine == "auto" else engine
    print(f"  {plan.source}: {len(plan.marks)} partitions, about {plan.rows:,} rows, engine {chosen}", flush=True)
    started = time.perf_counter()
    for partition in plan.marks:
        store.begin_load(plan.source, partition, version, task.loader)
    counts = load_with_spark(task, master) if chosen == "spark" else load_here(task)
    for partition, mark in plan.marks.items():
        store.finish_load(plan.source, partition, version, mark, loader=task.loader)
    _report(plan, counts, time.perf_counter() - started)
    return len(plan.marks)


def load_here(task: LoadTask) -> pa.Table:
    """Load in this process, which holds all rows; returns the counts as a task of Spark does."""
    return task.load([pa.concat_tables([task.read(file) for file in task.files()])])


def load_with_spark(task: LoadTask, master: str) -> pa.Table:
    """Load by a Spark job on this process's session; returns the tasks' counts."""
    from feature_jobs import spark, spark_backfill  # noqa: PLC0415 - a small lake does without Spark, and its import

    return spark_backfill.load_with_spark(spark.spark_session(task.data, master), task)


def _report(plan: LoadPlan, counts: pa.Table, seconds: float) -> None:
    found = {kind: pc.sum(counts.filter(pc.field("kind") == kind.value)["shards"]).as_py() or 0 for kind in Kind}
    events = sum(mark.sequence + 1 for mark in plan.marks.values())
    print(
        f"  {plan.source}: {events:,} events, {found[Kind.USER]:,} users, {found[Kind.ITEM]:,} items, "
        f"{found[Kind.PRODUCT]:,} catalogue entries in {seconds:.1f} s ({events / seconds:,.0f} events/s); marks: "
        + ", ".join(f"{partition} at {mark.sequence}" for partition, mark in plan.marks.items()),
        flush=True,
    )


def versions_to_load(data: Path, redis_url: str, release_id: str | None = None) -> list[AnyVersion]:
    """The state versions that this code, the releases in use and the release about to be published need.

    A version that was marked broken is left out: it is loaded once it is cleared. Raises InfrastructureFault.
    """
    blobs = FolderBlobStore(data)
    with connect(redis_url, timeout_ms=_REDIS_TIMEOUT_MS) as client:
        needed = list(needed_versions(RedisReleaseStore(client), partial(read_release, blobs)).fold)
        broken = StateVersions(client).broken()
    if release_id is not None:
        release = read_release(blobs, release_id)
        needed.append(described_version(release.state_version, release.state_layouts or {}))
    return [one for one in {version.name: version for version in needed}.values() if one.name not in broken]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Load what has no mark yet into Redis; a second run finds nothing to do."""
    settings = Settings.from_environment(os.environ)
    parser = argparse.ArgumentParser(prog="python -m feature_jobs.backfill_state", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument("--redis", default="", metavar="URL", help="feature state (default: the setting REDIS_URL)")
    parser.add_argument("--release", metavar="ID", help="load what this release needs as well (default: those in use)")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help=f"auto takes Spark for a source of {SPARK_FROM_ROWS:,} rows or more (default %(default)s)",
    )
    parser.add_argument(
        "--master", default=DEFAULT_MASTER, metavar="URL", help="Spark master of the first session (%(default)s)"
    )
    arguments = parser.parse_args(argv)
    redis_url = arguments.redis or settings.redis_url
    for version in versions_to_load(arguments.data, redis_url, arguments.release):
        print(f"state version {version.name}", flush=True)
        backfill_state(
            arguments.data,
            redis_url,
            settings.user_key_secret,
            version,
            engine=arguments.engine,
            master=arguments.master,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
