"""Exposures: every page shown, with all that a recomputation needs, one file a worker and minute."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from functions.metrics import Metrics
from shared.errors import InfrastructureFault
from shared.ingest.exposures import write_exposures
from shared.ports import BlobStore

log = logging.getLogger(__name__)

MINUTE_MS: Final = 60_000
MAX_BUFFER_BYTES: Final = 64 * 1024**2


class ExposureWriter:
    """Keeps a minute's lines in memory and writes them when the minute is over; `flush` writes what there is.

    A flush keeps the lines of the minute under way, because the minute's next file replaces this one. A crash loses
    what was not flushed: a minute at most, and the numbers that each worker gives its lines show the gap. What does
    not fit in memory while the blob store is away is dropped and counted.
    """

    def __init__(
        self,
        blobs: BlobStore,
        worker: str,
        clock: Callable[[], int],
        metrics: Metrics,
        *,
        max_buffer_bytes: int = MAX_BUFFER_BYTES,
    ) -> None:
        """`worker` names this process' files and must never come again; `clock` tells epoch ms."""
        self.worker = worker
        self._blobs = blobs
        self._clock = clock
        self._metrics = metrics
        self._max_bytes = max_buffer_bytes
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._minutes: dict[int, list[bytes]] = {}
        self._flushed: dict[int, int] = {}
        self._bytes = 0
        self._number = 0

    def next_number(self) -> int:
        """The number of the next line: 1, 2, 3 for as long as the worker lives."""
        with self._lock:
            self._number += 1
            return self._number

    def record(self, line: bytes) -> None:
        """Take one exposure, a line of JSON without its newline."""
        minute_at = self._clock() // MINUTE_MS * MINUTE_MS
        with self._lock:
            if self._bytes + len(line) > self._max_bytes:
                self._metrics.exposures.labels("lost").inc()
                return
            self._minutes.setdefault(minute_at, []).append(line)
            self._bytes += len(line)

    def lines_of_minute(self, minute_at: int) -> list[bytes]:
        """The lines still in memory of the minute that begins at `minute_at` (epoch ms)."""
        with self._lock:
            return list(self._minutes.get(minute_at, ()))

    def write_finished(self) -> None:
        """Write the minutes that are over and forget them. Raises InfrastructureFault; nothing is lost then."""
        now_minute_at = self._clock() // MINUTE_MS * MINUTE_MS
        self._write(lambda minute_at: minute_at < now_minute_at)

    def flush(self) -> None:
        """Write everything there is, the minute under way too. Raises InfrastructureFault; nothing is lost then."""
        self._write(lambda _minute_at: True)

    def close(self) -> None:
        """Flush for the last time; what cannot be written now is counted as lost."""
        try:
            self.flush()
        except InfrastructureFault:
            with self._lock:
                pending = sum(len(lines) - self._flushed.get(at, 0) for at, lines in self._minutes.items())
            self._metrics.exposures.labels("lost").inc(pending)
            log.exception("%d exposures of this worker are lost", pending)

    def _write(self, chosen: Callable[[int], bool]) -> None:
        with self._writing:
            now_minute_at = self._clock() // MINUTE_MS * MINUTE_MS
            with self._lock:
                due = {at: list(lines) for at, lines in sorted(self._minutes.items()) if chosen(at)}
            for minute_at, lines in due.items():
                before = self._flushed.get(minute_at, 0)
                if len(lines) > before:
                    write_exposures(self._blobs, self.worker, minute_at, lines)
                    self._metrics.exposures.labels("written").inc(len(lines) - before)
                    self._flushed[minute_at] = len(lines)
                if minute_at < now_minute_at:
                    self._forget(minute_at, len(lines))

    def _forget(self, minute_at: int, written: int) -> None:
        """Drop a finished minute unless a line slipped in while its file was written."""
        with self._lock:
            lines = self._minutes[minute_at]
            if len(lines) == written:
                del self._minutes[minute_at]
                self._flushed.pop(minute_at, None)
                self._bytes -= sum(map(len, lines))
