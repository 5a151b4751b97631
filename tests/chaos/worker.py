"""The body of a child that folds: the real pump, processor and sealing over ports that may end its life."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from local.event_pump import EventPump, RetryPolicy
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_log import RedisCheckpoints, RedisEventLog
from shared.adapters.redis_state import RedisStateStore
from shared.errors import InfrastructureFault
from shared.events import Event
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.processor import EventProcessor
from shared.ingest.seal import seal_landing, trim_broker
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord
from tests.chaos.dying_ports import DyingBlobs, DyingBroker, DyingCheckpoints, DyingReader, DyingStore
from tests.chaos.points import Doom, Fuse, Point
from tests.chaos.scale import SECRET, SOURCE, Trial
from tests.chaos.workload import FOLD_POISON

QUIET_S = 0.3
"""A worker without records compares its marks with the broker so often; the product does it every minute."""


@dataclass(frozen=True, slots=True)
class Life:
    """What will happen to one worker: its death (None: it lives until it is told), and how it behaves until then."""

    number: int
    point: Point | None
    calls: int
    stalls: tuple[int, ...] = ()


def poisoned(event_id: str) -> bool:
    """Whether the consumers' fold raises at this event."""
    return event_id.startswith(FOLD_POISON)


def raising_version() -> AnyVersion:
    """The current state version, whose fold raises at poison after it has changed the shard."""

    def fold_user(shard: Any, event: Event, enqueued_at: int, sequence: int) -> bool:
        accepted = CURRENT_VERSION.fold_user(shard, event, enqueued_at, sequence)
        if poisoned(event.event_id):
            raise ZeroDivisionError(event.event_id)
        return accepted

    return replace(CURRENT_VERSION, fold_user=fold_user)


class Worker:
    """One consumer of all partitions, which also seals and trims, as the deployed app does."""

    def __init__(self, trial: Trial, life: Life, witness: int) -> None:
        scale, place, mutant = trial.scale, trial.place, trial.mutant
        self._draw = random.Random(f"life {trial.seed} {life.number}")
        self._parent = os.getppid()
        self._partitions = range(scale.partitions)
        doom = Doom(life.point, life.calls, witness)
        state = connect(place.state_url, timeout_ms=5000)
        fuse = Fuse(state, doom)
        store = RedisStateStore(state, SECRET)
        self._store = DyingStore(store, doom, fuse, life.stalls)
        self._blobs = DyingBlobs(FolderBlobStore(place.lake), doom, Point.SEAL_WRITTEN)
        log = connect(place.log_url, timeout_ms=5000)
        self._log = RedisEventLog(log, SOURCE, scale.partitions)
        version = raising_version()
        self._processor = EventProcessor(
            SOURCE,
            store=self._store,
            versions=[mutant.version(version) if mutant else version],
            blobs=self._blobs,
            broker=DyingBroker(self._log, doom, self._store.refilling.add),
        )
        retries = self._draw.choice((None, None, 1))
        self._pump = EventPump(
            DyingReader(self._log, doom),
            DyingCheckpoints(RedisCheckpoints(log, SOURCE), doom),
            self._partitions,
            self._handle,
            batch_size=self._draw.randrange(scale.batch // 3, scale.batch + 1),
            retry=RetryPolicy(retries, first_delay_s=0.01, longest_delay_s=0.1),
            wait=self._rest,
            idle_ms=30,
        )
        self._seal_every = self._draw.randrange(3, 15)
        self._handled = 0
        self._looked_at = time.monotonic()

    def run(self) -> None:
        """Until the process is killed."""
        if self._draw.random() < 0.5:
            self._catch_up()
        self._pump.run()

    def _handle(self, records: Sequence[LogRecord]) -> None:
        self._leave_with_parent()
        self._processor.process(self._disturbed(records))
        if self._draw.random() < 0.05:
            self._processor.process(records)  # delivered once more, whole
        self._handled += 1
        if self._handled % self._seal_every == 0:
            self._seal()

    def _disturbed(self, records: Sequence[LogRecord]) -> list[LogRecord]:
        """The batch as a careless host may deliver it: overlapping, with repeats, out of order, with its start late."""
        draw, offered = self._draw, list(records)
        first = records[0]
        if draw.random() < 0.3:
            reach = draw.randrange(1, 80)
            offered += [
                one
                for one in self._log.read(first.partition, max(-1, first.sequence - 1 - reach), reach)
                if one.sequence < first.sequence
            ]
        if draw.random() < 0.2:
            offered += draw.choices(offered, k=10)
        if draw.random() < 0.4:
            draw.shuffle(offered)
        if draw.random() < 0.1:
            self._processor.process(list(records[len(records) // 2 :]))
        return offered

    def _seal(self) -> None:
        seal_landing(SOURCE, self._partitions, store=self._store, blobs=self._blobs)
        trim_broker(SOURCE, self._partitions, broker=self._log, blobs=self._blobs)

    def _catch_up(self) -> None:
        try:
            self._processor.catch_up(self._partitions)
        except InfrastructureFault:
            return  # as at start and every minute: what does not answer now is asked again
        finally:
            self._looked_at = time.monotonic()

    def _rest(self, after_sequences: Mapping[int, int], timeout_ms: int) -> None:
        self._leave_with_parent()
        if time.monotonic() - self._looked_at > QUIET_S:
            self._catch_up()
            self._seal()
        self._log.wait(after_sequences, timeout_ms)

    def _leave_with_parent(self) -> None:
        if os.getppid() != self._parent:
            os._exit(0)
