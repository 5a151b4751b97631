"""The ports as a doomed worker sees them: they do what the real ones do, and end its process at the named point."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from shared.adapters.redis_log import RedisCheckpoints, RedisEventLog
from shared.ingest.marks import sequence_of_mark
from shared.ports import (
    BlobStore,
    LandingRow,
    LogRecord,
    PartitionCommit,
    PartitionState,
    StateStore,
    Touched,
)
from tests.chaos.points import Doom, Fuse, Point

STALL_S = 0.4
"""How long a stalled worker may sleep before it commits what it folded."""


class DyingStore:
    """StateStore; `stalls` lists the numbers of the commits before which the worker falls asleep."""

    def __init__(self, store: StateStore, doom: Doom, fuse: Fuse, stalls: Sequence[int] = ()) -> None:
        self._store = store
        self._doom = doom
        self._fuse = fuse
        self._stalls = set(stalls)
        self._commits = 0
        self._read_to: dict[int, int] = {}
        self.refilling: set[int] = set()

    def read(self, source: str, partition: int, versions: Sequence[str], touched: Touched) -> PartitionState:
        state = self._store.read(source, partition, versions, touched)
        self._read_to[partition] = sequence_of_mark(state.log_mark)
        self._doom.reach(Point.STATE_READ)
        return state

    def commit(self, commit: PartitionCommit) -> None:
        self._commits += 1
        if self._commits in self._stalls:
            self._fall_asleep(commit)
        if commit.partition in self.refilling:
            self.refilling.discard(commit.partition)
            self._doom.reach(Point.REFILL_COMMIT)
        self._doom.reach(Point.COMMIT_BEFORE)
        for point in (Point.COMMIT_SENT, Point.COMMIT_HALF_SENT):
            if self._doom.due(point):
                self._fuse.light(point)
        self._store.commit(commit)
        self._doom.reach(Point.COMMIT_DONE)

    def landing_rows(self, source: str, partition: int, first: int, last: int) -> list[LandingRow]:
        rows = self._store.landing_rows(source, partition, first, last)
        if first == self._read_to.get(partition, -1) + 1:  # a gap starts right above the mark; other looks do not
            self.refilling.add(partition)
            self._doom.reach(Point.REFILL_LAKE)
        return rows

    def oldest_landing_rows(self, source: str, partition: int, limit: int) -> list[LandingRow]:
        rows = self._store.oldest_landing_rows(source, partition, limit)
        if rows:
            self._doom.reach(Point.SEAL_READ)
        return rows

    def trim_landing(self, source: str, partition: int, through: LandingRow) -> None:
        self._store.trim_landing(source, partition, through)
        self._doom.reach(Point.SEAL_TRIMMED)

    def _fall_asleep(self, commit: PartitionCommit) -> None:
        """Between reading and committing, as a frozen machine does, until the other worker went past or gave up."""
        until = time.monotonic() + STALL_S
        while time.monotonic() < until:
            state = self._store.read(commit.source, commit.partition, [], Touched())
            if commit.log is None or state.log_mark != commit.log.mark_before:
                return
            time.sleep(0.005)


class DyingBlobs:
    """BlobStore of a lake."""

    def __init__(self, blobs: BlobStore, doom: Doom, written: Point) -> None:
        self._blobs = blobs
        self._doom = doom
        self._written = written

    def read(self, name: str) -> bytes:
        return self._blobs.read(name)

    def write(self, name: str, data: bytes) -> None:
        self._blobs.write(name, data)
        self._doom.reach(self._written)

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        done = self._blobs.replace(name, data, expected)
        self._doom.reach(self._written)
        return done

    def names(self, prefix: str) -> Iterator[str]:
        return self._blobs.names(prefix)

    def delete(self, name: str) -> None:
        self._blobs.delete(name)


class DyingReader:
    """EventLogReader of the pump."""

    def __init__(self, log: RedisEventLog, doom: Doom) -> None:
        self._log = log
        self._doom = doom

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
        records = self._log.read(partition, after_sequence, limit)
        if records:
            self._doom.reach(Point.BROKER_READ)
        return records

    def last_sequence(self, partition: int) -> int | None:
        return self._log.last_sequence(partition)


class DyingBroker(DyingReader):
    """RetainedLog of the processor, which reads it only to refill a gap."""

    def __init__(self, log: RedisEventLog, doom: Doom, on_refill: Callable[[int], None]) -> None:
        super().__init__(log, doom)
        self._on_refill = on_refill

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
        records = self._log.read(partition, after_sequence, limit)
        self._on_refill(partition)
        self._doom.reach(Point.REFILL_BROKER)
        return records

    def first_sequence(self, partition: int) -> int:
        return self._log.first_sequence(partition)

    def trim_below(self, partition: int, sequence: int) -> None:
        self._log.trim_below(partition, sequence)


class DyingCheckpoints:
    """The pump's checkpoints."""

    def __init__(self, checkpoints: RedisCheckpoints, doom: Doom) -> None:
        self._checkpoints = checkpoints
        self._doom = doom

    def get(self, partition: int) -> int:
        return self._checkpoints.get(partition)

    def set(self, partition: int, sequence: int) -> None:
        self._checkpoints.set(partition, sequence)
        self._doom.reach(Point.CHECKPOINT_SET)
