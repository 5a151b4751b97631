"""Event Hubs trigger: from what the host hands over to records of the log, and on to their partition's processor."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import azure.functions as func

from functions.metrics import Metrics
from shared.errors import InfrastructureFault
from shared.events import to_ms
from shared.ingest.processor import EventProcessor
from shared.ports import LogRecord


class EventIngest:
    """Folds records partition by partition; two calls never fold the same partition at once."""

    def __init__(self, source: str, partition_count: int, processor: EventProcessor, metrics: Metrics) -> None:
        self._source = source
        self._partitions = tuple(range(partition_count))
        self._processor = processor
        self._metrics = metrics
        self._guard = threading.Lock()
        self._locks: dict[int, threading.Lock] = {}

    def process_batch(self, events: Sequence[func.EventHubEvent]) -> None:
        """As `process`, from what the Event Hubs trigger delivers."""
        self.process(records_of(events, self._source))

    def process(self, records: Sequence[LogRecord]) -> None:
        """Bring the state up to the last of these records. Raises as `PartitionProcessor.process`."""
        groups: dict[int, list[LogRecord]] = defaultdict(list)
        for record in records:
            groups[record.partition].append(record)
        for partition, group in sorted(groups.items()):
            with self._lock_of(partition):
                self._processor.partition(partition).process(group)
            self._metrics.folded.inc(len(group))

    def catch_up(self) -> None:
        """Compare every partition's marks with the broker's last sequence, so that a quiet one heals too."""
        for partition in self._partitions:
            with self._lock_of(partition):
                self._processor.partition(partition).catch_up()

    def _lock_of(self, partition: int) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(partition, threading.Lock())


def records_of(events: Sequence[func.EventHubEvent], source: str) -> list[LogRecord]:
    """The records of one invocation, which holds one partition's events.

    The partition stands in the invocation's metadata alone; sequence and instant stand with each event.

    Raises:
        InfrastructureFault: one of them is missing: nothing may be guessed, and the batch is offered again.
    """
    if not events:
        return []
    partition = _partition_of(events[0].metadata)
    return [_record(event, source, partition) for event in events]


def _partition_of(metadata: Any) -> int:  # noqa: ANN401 - whatever the host sent
    for name in ("PartitionContext", "TriggerPartitionContext"):
        context = (metadata or {}).get(name)
        number = context.get("PartitionId") if isinstance(context, dict) else None
        if number is not None and str(number).isdecimal():
            return int(number)
    raise InfrastructureFault("the batch came without its partition (PartitionContext.PartitionId): check the trigger")


def _record(event: func.EventHubEvent, source: str, partition: int) -> LogRecord:
    sequence, enqueued = event.sequence_number, event.enqueued_time
    if sequence is None or enqueued is None:
        raise InfrastructureFault(
            f"a record of partition {partition} came without its sequence number or instant: check the trigger"
        )
    # The host sends EnqueuedTimeUtc as a DateTime that does not say it is UTC.
    instant = enqueued if enqueued.tzinfo else enqueued.replace(tzinfo=UTC)
    return LogRecord(source, partition, int(sequence), to_ms(instant), event.get_body())
