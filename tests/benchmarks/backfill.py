"""How long a backfill takes as histories grow, what memory it needs, and whether it equals the stream.

Each size is loaded by a process of its own, as an operator would, into an empty embedded server. Up to --whole events
the state is compared whole with what the processor leaves, beyond that on a sample of users and items.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from redis import Redis

from local.embedded import STATE_OPTIONS, EmbeddedServer
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import PartitionKeys, item_field, user_key
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.cli import command
from shared.events import BEHAVIOUR, EventType, encode_event, id_hash
from shared.ingest.lake import LakeManifest, ShopSettings, publish_history, read_manifest, read_rows
from shared.ingest.lake_files import read_file
from shared.ingest.lake_table import events_of_table
from shared.ingest.processor import PartitionProcessor
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord, Mark
from shared.settings import SECRET_DEFAULT
from tests.benchmarks.event_history import history_tables, users_and_items
from tests.benchmarks.peak_memory import PeakMemory, growth, watched

SOURCE: Final = "history-bench"
PARTITIONS: Final = 4
SAMPLE: Final = 300
_REDIS_TIMEOUT_MS: Final = 120_000


def measure(events: int, folder: Path, engine: str, master: str, whole: int) -> dict[str, Any]:
    """Make a history (if the folder does not hold it), load it, compare; the numbers as plain values."""
    data = folder / f"history-{events}"
    blobs = FolderBlobStore(data)
    started = time.perf_counter()
    if read_manifest(blobs) is None:
        publish_history(blobs, SOURCE, PARTITIONS, ShopSettings(), history_tables(events))
    generated_s = time.perf_counter() - started
    manifest = read_manifest(blobs)
    assert manifest is not None
    with (
        EmbeddedServer(folder / "redis", STATE_OPTIONS) as server,
        connect(server.url, timeout_ms=_REDIS_TIMEOUT_MS) as client,
    ):
        client.flushall()
        started = time.perf_counter()
        peak = load(data, server.url, engine, master)
        seconds = time.perf_counter() - started
        redis: Any = client.info("memory")
        equal = equal_to_the_stream(client, data, manifest, whole=events <= whole)
        client.flushall()
    users, items = users_and_items(events)
    return {
        "events": events,
        "users": users,
        "items": items,
        "seconds": round(seconds, 1),
        "events_per_s": round(events / seconds),
        "peak_memory_mb": round(peak.total_mb),
        "peak_memory_by_program_mb": peak.by_program,
        "redis_mb": round(redis["used_memory"] / 1e6),
        "generated_s": round(generated_s, 1),
        **equal,
    }


def load(data: Path, redis_url: str, engine: str, master: str) -> PeakMemory:
    """Run the stage to its end. Raises CalledProcessError."""
    words = ["--data", str(data), "--redis", redis_url, "--engine", engine, "--master", master]
    environment = {**os.environ, "USER_KEY_SECRET": SECRET_DEFAULT}
    stage = subprocess.Popen(
        [sys.executable, "-m", "feature_jobs.backfill_state", *words], stdout=sys.stderr, env=environment
    )
    with watched(stage.pid) as peak:
        code = stage.wait()
    if code:
        raise subprocess.CalledProcessError(code, stage.args)
    return peak


def equal_to_the_stream(client: Redis, data: Path, manifest: LakeManifest, *, whole: bool) -> dict[str, Any]:
    """Compare marks and shards; False in `equal` when one byte differs."""
    blobs, store = FolderBlobStore(data), RedisStateStore(client, SECRET_DEFAULT)
    marks = [
        store.marks(SOURCE, int(partition), CURRENT_VERSION.name) == (Mark(*mark), Mark(*mark))
        for partition, mark in manifest.marks[SOURCE].items()
    ]
    if whole:
        loaded = stored(client)
        client.flushall()
        stream(blobs, data, store)
        equal, compared = stored(client) == loaded, len(loaded)
        return {"equal": equal and all(marks), "compared": "the whole state", "keys": compared}
    users, items = users_and_items(sum(entry.rows for entry in manifest.files))
    wrong, compared = compare_sample(client, blobs, manifest, users, items)
    said = f"marks, and {compared:,} shards of {SAMPLE} users and {SAMPLE} items"
    return {"equal": not wrong and all(marks), "compared": said, "different": wrong}


def stored(client: Redis) -> dict[bytes, Any]:
    """Everything that must not depend on how the log was cut: all keys but landing and feed."""
    found: dict[bytes, Any] = {}
    for name in client.scan_iter(count=5000):
        kind = client.type(name)
        if kind == b"string":
            found[name] = client.get(name)
        elif kind == b"hash" and b"{" in name:
            found[name] = client.hgetall(name)
    return found


@dataclass(frozen=True)
class HeldLog:
    """One partition's records, as a broker that forgets nothing holds them."""

    records: Sequence[LogRecord]

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
        found = self.records[after_sequence + 1 : after_sequence + 1 + limit]
        return [one for one in found if one.partition == partition]

    def last_sequence(self, partition: int) -> int | None:
        assert all(one.partition == partition for one in self.records[-1:])
        return self.records[-1].sequence if self.records else None

    def first_sequence(self, partition: int) -> int:
        assert all(one.partition == partition for one in self.records[:1])
        return 0

    def trim_below(self, partition: int, sequence: int) -> None:
        raise AssertionError(f"nobody trims a history: {partition} below {sequence}")


def stream(blobs: FolderBlobStore, data: Path, store: RedisStateStore) -> None:
    """Offer the history's rows to the processor as a broker would."""
    no_lake = FolderBlobStore(data / "no-lake")
    for number in range(PARTITIONS):
        table = read_rows(blobs).filter(pc.field("partition") == number)
        columns = [table[name].to_pylist() for name in ("sequence", "enqueued_at")]
        records = [
            LogRecord(SOURCE, number, sequence, at, encode_event(event))
            for sequence, at, event in zip(*columns, events_of_table(table), strict=True)
            if event is not None
        ]
        versions = [CURRENT_VERSION]
        processor = PartitionProcessor(
            SOURCE, number, store=store, versions=versions, blobs=no_lake, broker=HeldLog(records)
        )
        processor.process(records)


def compare_sample(
    client: Redis, blobs: FolderBlobStore, manifest: LakeManifest, users: int, items: int
) -> tuple[int, int]:
    """Fold a sample of users and items from the lake's rows in log order; how many shards differ, and of how many."""
    draw = np.random.default_rng(1)
    chosen_users = pa.array([f"u{n}" for n in draw.choice(users, SAMPLE, replace=False)])
    chosen_items = pa.array([f"i{n}" for n in draw.choice(items, SAMPLE, replace=False)])
    shards: dict[tuple[str, int, str], Any] = {}
    for entry in sorted(manifest.files, key=lambda one: one.day):
        table = read_file(blobs, entry)
        mine = pc.or_(
            pc.is_in(table["user_id"], value_set=chosen_users), pc.is_in(table["item_id"], value_set=chosen_items)
        )
        fold_rows_of(table.filter(mine), {*chosen_users.to_pylist()}, {*chosen_items.to_pylist()}, shards)
    wrong = 0
    for (kind, partition, entity), state in shards.items():
        keys = PartitionKeys(SOURCE, partition)
        if kind == "user":
            name = keys.user(CURRENT_VERSION.name, user_key(entity, SECRET_DEFAULT))
            wrong += client.get(name) != CURRENT_VERSION.encode_user(state)
        else:
            held = client.hget(keys.items(CURRENT_VERSION.name), item_field(id_hash(entity)))
            wrong += held != CURRENT_VERSION.encode_item(state)
    return wrong, len(shards)


def fold_rows_of(table: pa.Table, users: set[str], items: set[str], shards: dict[tuple[str, int, str], Any]) -> None:
    """Fold a day's rows, ordered by partition and sequence, into the shards of these users and items."""
    columns = [table[name].to_pylist() for name in ("partition", "sequence", "enqueued_at")]
    for partition, sequence, at, event in zip(*columns, events_of_table(table), strict=True):
        if event is None or event.event_type is EventType.ITEM_UPDATED:
            continue
        if event.user_id in users:
            place = ("user", partition, str(event.user_id))
            CURRENT_VERSION.fold_user(shards.setdefault(place, CURRENT_VERSION.decode_user(None)), event, at, sequence)
        if event.item_id in items and event.event_type in BEHAVIOUR:
            place = ("item", partition, str(event.item_id))
            CURRENT_VERSION.fold_item(shards.setdefault(place, CURRENT_VERSION.decode_item(None)), event, at)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print JSON; 0 when every state equals the stream's, 1 when one differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.backfill", description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[100_000, 1_000_000], metavar="N", help="sizes")
    parser.add_argument("--engine", default="auto", help="as of feature_jobs.backfill_state (default %(default)s)")
    parser.add_argument("--master", default="local[2]", metavar="URL", help="Spark master (default %(default)s)")
    parser.add_argument("--whole", type=int, default=100_000, metavar="N", help="compared whole up to so many events")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keeps the histories here for the next time")
    arguments = parser.parse_args(argv)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="recommndr-backfill-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        sizes = [
            measure(events, folder, arguments.engine, arguments.master, arguments.whole)
            for events in sorted(arguments.events)
        ]
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    load_average = os.getloadavg()[0]
    print(
        json.dumps(
            {
                "backfill": sizes,
                "growth": growth(sizes),
                "cores": os.cpu_count(),
                "load_average_1m": round(load_average, 1),
            },
            indent=1,
        )
    )
    return 0 if all(size["equal"] for size in sizes) else 1


if __name__ == "__main__":
    sys.exit(main())
