"""How many events a second the processor takes in: `python -m tests.benchmarks.throughput`.

The embedded server runs pinned to one core and the processor pinned to another; JSON decoding, fold, items, landing and
commit are all in. The records lie ready in memory: what a broker costs is not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any, Final

from redis import Redis

from local.embedded import STATE_OPTIONS, EmbeddedServer
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.cli import command
from shared.events import decode_event, encode_event
from shared.ingest.chunks import MOST_RECORDS
from shared.ingest.processor import PartitionProcessor
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord
from tests.benchmarks.event_stream import SOURCE, EventStream, log_records
from tests.benchmarks.fold_stages import stage_times

EVENTS: Final = 20_000
BATCHES: Final = (10, 100, 500, 1000)
WARM_EVENTS: Final = 20_000
"""Folded before anything is measured, so that shards and items are there to be read."""
USERS, ITEMS = 20_000, 20_000
"""Of one partition: a million users and their shop over fifty partitions."""
STAGE_CHUNKS: Final = 50
_TIMEOUT_MS: Final = 30_000


class MemoryLog:
    """A broker log that has nothing more to give: every record is offered."""

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
        """Nothing."""
        del partition, after_sequence, limit
        return []

    def last_sequence(self, partition: int) -> int | None:
        """Never written to."""
        del partition
        return None

    def first_sequence(self, partition: int) -> int:
        """Nothing was lost."""
        del partition
        return 0

    def trim_below(self, partition: int, sequence: int) -> None:
        """Nothing to trim."""


def pin(pid: int, core: int) -> bool:
    """Keep every thread of a process on one core; False where the system has no such thing or too few cores."""
    if not hasattr(os, "sched_setaffinity") or len(_CORES) < 2:
        return False
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
    return True


_CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@dataclass(slots=True)
class Partition:
    """One partition's processor and the records it is yet to be offered."""

    processor: PartitionProcessor
    records: Sequence[LogRecord]

    def take(self, count: int) -> list[LogRecord]:
        """The next records."""
        taken, self.records = list(self.records[:count]), self.records[count:]
        return taken


class Bench:
    """A pinned server, and partitions to offer batches to."""

    def __init__(self, server: EmbeddedServer, client: Redis, blobs: FolderBlobStore) -> None:
        self._server = server
        self._client = client
        self._blobs = blobs
        self.store = RedisStateStore(client, "benchmark")
        pid = server.pid()
        self.pinned = pid is not None and pin(pid, _CORES[0]) and pin(os.getpid(), _CORES[-1])

    def partition(self, number: int, events: int) -> Partition:
        """A partition that has folded its warm-up and holds `events` more."""
        stream = EventStream(number, users=USERS, items=ITEMS)
        records = log_records(list(stream.bodies(WARM_EVENTS + events)), partition=number)
        processor = PartitionProcessor(
            SOURCE, number, store=self.store, versions=[CURRENT_VERSION], blobs=self._blobs, broker=MemoryLog()
        )
        processor.process(records[:WARM_EVENTS])
        return Partition(processor, records[WARM_EVENTS:])

    def measure(self, partitions: Sequence[Partition], events: int, batch: int) -> dict[str, Any]:
        """Offer `events` to each partition in batches, the partitions at once; rates, and each side's time an event."""
        offers = [[list(one) for one in batched(each.take(events), batch, strict=False)] for each in partitions]
        walls: list[float] = []
        server_before, cpu, wall = self._server_seconds(), time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(len(partitions)) as pool:
            for took in pool.map(_offer, partitions, offers):
                walls += took
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        total = events * len(partitions)
        return {
            "batch": batch,
            "partitions_at_once": len(partitions),
            "events_per_s": round(total / wall),
            "events_per_s_best_tenth": round(len(partitions) * batch / statistics.quantiles(walls, n=10)[0]),
            "processor_us_per_event": round(cpu / total * 1e6, 1),
            "server_us_per_event": round((self._server_seconds() - server_before) / total * 1e6, 1),
        }

    def _server_seconds(self) -> float:
        used: Any = self._client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])


def _offer(partition: Partition, offers: Sequence[list[LogRecord]]) -> list[float]:
    """Seconds of wall time each batch took."""
    took = []
    for records in offers:
        began = time.perf_counter()
        partition.processor.process(records)
        took.append(time.perf_counter() - began)
    return took


def path_ratio(bench: Bench, chunks: int) -> float:
    """Processor time of the whole path over that of decoding and encoding the same events, in turns: the median."""
    partition = bench.partition(90, chunks * MOST_RECORDS)
    ratios = []
    for _ in range(chunks):
        records = partition.take(MOST_RECORDS)
        began = time.thread_time()
        for record in records:
            encode_event(decode_event(record.body))
        bare, began = time.thread_time() - began, time.thread_time()
        partition.processor.process(records)
        ratios.append((time.thread_time() - began) / bare)
    return statistics.median(ratios)


@contextmanager
def prepared() -> Iterator[Bench]:
    """A bench over a server of its own in a folder that goes away."""
    with (
        tempfile.TemporaryDirectory(prefix="recommndr-bench-") as folder,
        EmbeddedServer(Path(folder) / "state", STATE_OPTIONS) as server,
        connect(server.url, timeout_ms=_TIMEOUT_MS) as client,
    ):
        yield Bench(server, client, FolderBlobStore(Path(folder)))


def run(events: int, batches: Sequence[int]) -> dict[str, Any]:
    """All measurements, as JSON values."""
    with prepared() as bench:
        one = bench.partition(0, events * len(batches))
        rows = [bench.measure([one], events, batch) for batch in batches]
        two = [bench.partition(number, events) for number in (1, 2)]
        rows.append(bench.measure(two, events, MOST_RECORDS))
        return {
            "cores": len(_CORES),
            "pinned": bench.pinned,
            "load_1m": round(os.getloadavg()[0], 1),
            "events": events,
            "batches": rows,
            "stages_us_per_event": stage_times(bench.store, STAGE_CHUNKS),
            "ratio_to_decoding_and_encoding": round(path_ratio(bench, STAGE_CHUNKS), 2),
        }


def run_ratio() -> float:
    """`path_ratio` over a server of its own."""
    with prepared() as bench:
        return round(path_ratio(bench, STAGE_CHUNKS), 2)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.throughput", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help="events of each batch size (%(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="records offered at once (%(default)s)")
    arguments = parser.parse_args(argv)
    measured = run(arguments.events, arguments.batches)
    print(json.dumps(measured, indent=2))
    print("\nrecords offered   partitions     events/s   best tenth   processor us   server us")
    for row in measured["batches"]:
        print(
            f"{row['batch']:15,} {row['partitions_at_once']:12} {row['events_per_s']:12,}"
            f" {row['events_per_s_best_tenth']:12,} {row['processor_us_per_event']:14} {row['server_us_per_event']:11}"
        )
    total = sum(measured["stages_us_per_event"].values())
    print("\nwhere the time goes (wall time of the best tenth of chunks of 100)")
    for name, taken in measured["stages_us_per_event"].items():
        print(f"  {name:28} {taken:6.1f} us {taken / total:5.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
