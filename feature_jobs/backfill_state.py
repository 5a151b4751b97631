"""Stage: the lake's events folded into the feature state, for every partition that has no mark yet.

It runs the stream's own fold (`shared.ingest.fold_chunk`), so a customer of last year stands in Redis exactly as if
each of her events had come through the broker.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_backfill import HistorySources
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.cli import command
from shared.errors import ConfigurationError
from shared.ingest.fold_chunk import AnyVersion, Entry, fold_chunk, touched_by
from shared.ingest.lake import events_of_table, read_manifest, read_rows
from shared.ingest.lake_sealed import sealed_files
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LandingRow, Mark, PartitionState, UserWrite, Verdict, VersionShards
from shared.settings import Settings

FOLD_RECORDS: Final = 20_000
"""Records of one fold: its shards are decoded once and encoded once."""
_REDIS_TIMEOUT_MS: Final = 30_000
_REPORT_EVERY_S: Final = 3.0


@dataclass(slots=True)
class LoadedPartition:
    """A partition's shards as one fold after the other leaves them, encoded."""

    version: AnyVersion
    users: dict[str, UserWrite] = field(default_factory=dict)
    items: dict[int, bytes] = field(default_factory=dict)
    products: dict[int, bytes] = field(default_factory=dict)
    mark: Mark | None = None

    def fold(self, entries: Sequence[Entry]) -> None:
        """Fold the next run of entries, whose verdicts stand."""
        touched = touched_by(entries)
        name = self.version.name
        users = {user: self.users[user].shard if user in self.users else None for user in touched.users}
        shards = VersionShards(self.mark, users, {item: self.items.get(item) for item in touched.items})
        state = PartitionState(self.mark, {name: shards}, {item: self.products.get(item) for item in touched.products})
        commit = fold_chunk(entries, state, [self.version], with_log=True)
        assert commit.log is not None, "asked for with_log"
        self.users.update(commit.versions[name].users)
        self.items.update(commit.versions[name].items)
        self.products.update(commit.log.products)
        self.mark = commit.mark_after


def backfill_state(data: Path, redis_url: str, user_secret: str, version: AnyVersion = CURRENT_VERSION) -> int:
    """Load every (source, partition) of the lake below `data` that has no mark of `version`; return how many.

    The mark of a partition is written last. Ingested sources that the lake no longer has expire within a week.
    Raises ConfigurationError without a lake, InfrastructureFault when Redis does not answer.
    """
    blobs = FolderBlobStore(data)
    manifest = read_manifest(blobs)
    if manifest is None:
        raise ConfigurationError(f"there is no lake under {data}; run batch.generate_shop or batch.ingest_events first")
    history = [entry.name for entry in manifest.history()]
    sources = sorted({*manifest.marks, *(file.source for file in sealed_files(blobs))})
    with connect(redis_url, timeout_ms=_REDIS_TIMEOUT_MS) as client:
        register, store = HistorySources(client), RedisStateStore(client, user_secret)
        loaded = 0
        for source in sources:
            if source in history:
                register.begin(source)
            loaded += _load_source(blobs, source, store, version)
        for gone in register.retire_all_but(history):
            print(f"  {gone} is no longer in the lake: its state expires within a week")
    return loaded


def _load_source(blobs: FolderBlobStore, source: str, store: RedisStateStore, version: AnyVersion) -> int:
    manifest = read_manifest(blobs)
    partitions = {int(one) for one in (manifest.marks.get(source, {}) if manifest else {})}
    partitions |= {file.partition for file in sealed_files(blobs, source)}
    missing = [one for one in sorted(partitions) if store.marks(source, one, version.name)[1] is None]
    if not missing:
        print(f"  {source}: all {len(partitions)} partitions have their mark, nothing to load")
        return 0
    started = time.perf_counter()
    table = read_rows(blobs, sources=[source])
    print(f"  {source}: {table.num_rows:,} rows read in {time.perf_counter() - started:.1f} s", flush=True)
    for partition in missing:
        _load_partition(table.filter(pc.field("partition") == partition), source, partition, store, version)
    return len(missing)


def _load_partition(table: pa.Table, source: str, partition: int, store: RedisStateStore, version: AnyVersion) -> None:
    started = reported = time.perf_counter()
    rows = _without_hole(table)
    loaded = LoadedPartition(version)
    folded = 0
    for entries in batched(_entries(rows), FOLD_RECORDS, strict=False):
        loaded.fold(entries)
        folded += len(entries)
        if time.perf_counter() - reported > _REPORT_EVERY_S:
            reported = time.perf_counter()
            print(f"    {folded:,} of {rows.num_rows:,} events, {folded / (reported - started):,.0f}/s", flush=True)
    if loaded.mark is None:
        return
    users, items, products = loaded.users, loaded.items, loaded.products
    store.load(source, partition, version.name, users=users, items=items, products=products)
    store.finish_load(source, partition, version.name, loaded.mark)
    seconds = time.perf_counter() - started
    print(
        f"  {source}/{partition}: {folded:,} events, {len(users):,} users, {len(items):,} items, "
        f"{len(products):,} catalogue entries in {seconds:.1f} s ({folded / seconds:,.0f} events/s), "
        f"mark {loaded.mark.sequence}",
        flush=True,
    )


def _without_hole(rows: pa.Table) -> pa.Table:
    """The rows from sequence 0 up to the first that is missing: the stream's gap rule takes over from there."""
    sequences = np.asarray(rows["sequence"])
    ends = np.asarray(pc.coalesce(rows["last_sequence"], rows["sequence"]))
    expected = np.r_[0, np.maximum.accumulate(ends)[:-1] + 1] if len(ends) else ends
    holes = np.flatnonzero(sequences > expected)
    if not len(holes):
        return rows
    print(f"    the lake lacks sequence {expected[holes[0]]}; loaded up to there", flush=True)
    return rows.slice(0, int(holes[0]))


def _entries(rows: pa.Table) -> Iterator[Entry]:
    """The rows with their events (none for dead and skipped ones), as the stream's fold takes them."""
    names = ("source", "partition", "sequence", "enqueued_at", "verdict", "reason", "last_sequence")
    columns = [rows[name].to_pylist() for name in names]
    for source, partition, sequence, at, said, reason, last, event in zip(*columns, events_of_table(rows), strict=True):
        verdict = Verdict(said)
        row = LandingRow(source, partition, sequence, at, verdict, b"", reason, last)
        folded = verdict in {Verdict.ACCEPTED, Verdict.DUPLICATE}
        yield Entry(row, event if folded else None, standing=True)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Load what has no mark yet into Redis; a second run finds nothing to do."""
    settings = Settings.from_environment(os.environ)
    parser = argparse.ArgumentParser(prog="python -m feature_jobs.backfill_state", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument("--redis", default="", metavar="URL", help="feature state (default: the setting REDIS_URL)")
    arguments = parser.parse_args(argv)
    backfill_state(arguments.data, arguments.redis or settings.redis_url, settings.user_key_secret)
    return 0


if __name__ == "__main__":
    sys.exit(main())
