"""Event Hubs trigger: from what the host hands over to records of the log, and on to their partition's processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

import azure.functions as func

from functions.metrics import Metrics
from shared.errors import InfrastructureFault
from shared.events import to_ms
from shared.ingest.processor import EventProcessor
from shared.ports import LogRecord


class EventIngest:
    """Folds records partition by partition, for the state versions that are needed."""

    def __init__(
        self,
        source: str,
        processor: EventProcessor,
        metrics: Metrics,
        ensure_versions: Callable[[], None],
    ) -> None:
        """`ensure_versions` raises InfrastructureFault while it is not known which state versions to fold."""
        self._source = source
        self._processor = processor
        self._metrics = metrics
        self._ensure_versions = ensure_versions

    def process_batch(self, events: Sequence[func.EventHubEvent]) -> None:
        """As `process`, from what the Event Hubs trigger delivers."""
        self.process(records_of(events, self._source))

    def process(self, records: Sequence[LogRecord]) -> None:
        """Bring the state up to the last of these records. Raises as `PartitionProcessor.process`."""
        self._ensure_versions()
        self._processor.process(records)
        self._metrics.folded.inc(len(records))

    def catch_up(self, partitions: Sequence[int]) -> None:
        """Compare these partitions' marks with the broker's last sequence, so that a quiet one heals too."""
        self._ensure_versions()
        self._processor.catch_up(partitions)


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
