"""The local pump: hands the embedded log's records to the event function as Azure's host does, at least once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.errors import InfrastructureFault
from shared.ports import EventLogReader, LogRecord

log = logging.getLogger(__name__)


class Checkpoints(Protocol):
    """Where a consumer stands; -1 before the first record."""

    def get(self, partition: int) -> int:
        """The last sequence handed over."""
        ...

    def set(self, partition: int, sequence: int) -> None:
        """Move it."""
        ...


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a batch that raised is offered again: None is without limit, as host.json asks of Azure."""

    retries: int | None = None
    first_delay_s: float = 0.1
    longest_delay_s: float = 5.0

    def delay_s(self, attempt: int) -> float:
        """The pause before retry number `attempt`, from 1."""
        return min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(attempt - 1, 30))


class EventPump:
    """One consumer thread over all partitions.

    A batch holds one partition's records. Its checkpoint moves after the call, even when the call still raised after
    its retries: Azure's host does so, and the processor's gap rule heals it. A stop amid the retries leaves the
    checkpoint alone.
    """

    def __init__(
        self,
        reader: EventLogReader,
        checkpoints: Checkpoints,
        partitions: Sequence[int],
        handler: Callable[[Sequence[LogRecord]], None],
        *,
        batch_size: int = 256,
        retry: RetryPolicy = RetryPolicy(),
        wait: Callable[[Mapping[int, int], int], None] | None = None,
        idle_ms: int = 200,
        checkpoint_ms: int = 0,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wait(after_sequences, timeout_ms)` returns when there is more to read; without it the pump polls.

        Checkpoints are written at most every `checkpoint_ms`, when nothing is to be read, and at the end: each costs
        the log's server a sync of its file, and one that lags costs a redelivery.
        """
        self._reader = reader
        self._checkpoints = checkpoints
        self._partitions = tuple(partitions)
        self._handler = handler
        self._batch_size = batch_size
        self._retry = retry
        self._wait = wait
        self._idle_ms = idle_ms
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._positions: dict[int, int] = {}
        self._checkpoint_s = checkpoint_ms / 1000
        self._seconds = seconds
        self._unwritten: dict[int, int] = {}
        self._written_s = float("-inf")

    def start(self) -> None:
        """Run in a thread of its own."""
        self._stop.clear()
        self._thread = threading.Thread(target=self.run, name="event-pump", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End after the call under way; a batch that is being retried is given up without its checkpoint."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None

    def run(self) -> None:
        """Pump until `stop`; a broker that does not answer is asked again."""
        failures = 0
        while not self._stop.is_set():
            try:
                if self.pump_once() == 0:
                    self._write_checkpoints()
                    self._rest()
                failures = 0
            except InfrastructureFault as error:
                failures += 1
                self._positions.clear()
                self._unwritten.clear()
                log.warning("event pump: %s", error)
                self._stop.wait(self._retry.delay_s(failures))
        try:
            self._write_checkpoints()
        except InfrastructureFault as error:
            log.warning("event pump: checkpoints not written, the next start reads again: %s", error)

    def pump_once(self) -> int:
        """Offer one batch of each partition and return how many records were offered. Raises BrokerUnavailable."""
        offered = 0
        for partition in self._partitions:
            if self._stop.is_set():
                break
            records = self._reader.read(partition, self._position(partition), self._batch_size)
            if records and self._offer(records):
                self._unwritten[partition] = self._positions[partition] = records[-1].sequence
                offered += len(records)
                if self._seconds() - self._written_s >= self._checkpoint_s:
                    self._write_checkpoints()
        return offered

    def _write_checkpoints(self) -> None:
        for partition, sequence in list(self._unwritten.items()):
            self._checkpoints.set(partition, sequence)
            del self._unwritten[partition]
        self._written_s = self._seconds()

    def _position(self, partition: int) -> int:
        held = self._positions.get(partition)
        if held is None:
            held = self._positions[partition] = self._checkpoints.get(partition)
        return held

    def _offer(self, records: Sequence[LogRecord]) -> bool:
        """Call the handler with retries; False only when the pump stops meanwhile."""
        attempt = 0
        while True:
            try:
                self._handler(records)
            except Exception:
                attempt += 1
                coordinates = (records[0].partition, records[0].sequence, records[-1].sequence)
                if self._retry.retries is not None and attempt > self._retry.retries:
                    log.exception("event pump: gave up on partition %d, sequences %d to %d", *coordinates)
                    return True
                log.warning("event pump: partition %d, sequences %d to %d raised", *coordinates, exc_info=True)
                if self._stop.wait(self._retry.delay_s(attempt)):
                    return False
            else:
                return True

    def _rest(self) -> None:
        if self._wait is None:
            self._stop.wait(self._idle_ms / 1000)
        else:
            self._wait({partition: self._position(partition) for partition in self._partitions}, self._idle_ms)
