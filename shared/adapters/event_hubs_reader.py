"""What an event hub still holds, read for the gap rule: by sequence number, in bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import AzureError
from azure.eventhub import EventData, EventHubConsumerClient, PartitionContext
from azure.eventhub.amqp import AmqpMessageBodyType
from azure.eventhub.exceptions import EventHubError

from shared.adapters.event_hubs_connection import DEFAULT_GROUP
from shared.errors import BrokerUnavailable, ConfigurationError, InfrastructureFault
from shared.events import to_ms
from shared.ports import LogRecord

READ_AHEAD = 1000
"""Records fetched at once: each fetch opens a connection."""
_PREFETCH = 300
_TRIGGERS_LEVEL = 0

OpenClient = Callable[[], EventHubConsumerClient]


class EventHubsRetainedLog:
    """RetainedLog over one event hub. Its sequence numbers count from 0 in each partition; retention is the hub's.

    Every call has a client and a thread of its own and gives up after its timeout: the SDK's waits have no bound.
    """

    def __init__(
        self, open_client: OpenClient, source: str, partition_count: int, *, consumer_group: str, timeout_ms: int
    ) -> None:
        """In the group `$Default`, which the trigger holds, reads take the partition over for a moment."""
        self._open_client = open_client
        self._source = source
        self._partition_count = partition_count
        # A reader without a level is refused while the trigger, whose level is 0, holds the partition in its group.
        self._owner_level = _TRIGGERS_LEVEL + 1 if consumer_group == DEFAULT_GROUP else None
        self._timeout_s = timeout_ms / 1000
        self._counted = False
        self._ahead: dict[int, _Fetched] = {}

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
        """See EventLogReader. Raises BrokerUnavailable where the hub holds such records and gives none in time."""
        wanted = after_sequence + 1
        held = self._ahead.get(partition)
        if held is not None and held.first <= wanted <= held.last:
            return [record for record in held.records if record.sequence >= wanted][:limit]
        properties = self._properties(partition)
        last = _newest(properties)
        if last is None or properties["is_empty"] or last < wanted:
            return []
        records = self._receive(partition, wanted, last, max(limit, READ_AHEAD))
        self._ahead[partition] = _Fetched(wanted, records[-1].sequence, records)
        return records[:limit]

    def last_sequence(self, partition: int) -> int | None:
        """See EventLogReader."""
        return _newest(self._properties(partition))

    def first_sequence(self, partition: int) -> int:
        """See RetainedLog."""
        properties = self._properties(partition)
        if properties["is_empty"]:
            last = _newest(properties)
            return 0 if last is None else last + 1
        return int(properties["beginning_sequence_number"])

    def trim_below(self, partition: int, sequence: int) -> None:
        """Nothing: how long a hub keeps its records is its own setting, and nobody can shorten it from here."""

    def _properties(self, partition: int) -> dict[str, Any]:
        self._check_count()
        return self._bounded(lambda client: client.get_partition_properties(str(partition)))

    def _check_count(self) -> None:
        if self._counted:
            return
        found = self._bounded(lambda client: len(client.get_partition_ids()))
        if found != self._partition_count:
            raise ConfigurationError(
                f"the event hub has {found} partitions and PARTITION_COUNT is {self._partition_count}: make them equal"
            )
        self._counted = True

    def _bounded[T](self, ask: Callable[[EventHubConsumerClient], T]) -> T:
        """What `ask` returns, from a thread that is left to itself when it takes too long."""
        answers: list[T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                with self._open_client() as client:
                    answers.append(ask(client))
            except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
                errors.append(error)

        thread = threading.Thread(target=run, name="event-hubs-properties", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if errors:
            raise _mapped(errors[0]) from errors[0]
        if not answers:
            raise BrokerUnavailable(f"Event Hubs did not answer within {self._timeout_s:g} s")
        return answers[0]

    def _receive(self, partition: int, first: int, last: int, limit: int) -> list[LogRecord]:
        """Records from `first` on, ascending, at least one. The hub holds records up to `last`."""
        collected = _Collected(self._source, partition, first, last, limit)
        client = self._open_client()
        thread = threading.Thread(
            target=client.receive_batch,
            kwargs={
                "on_event_batch": collected.take,
                "on_error": collected.fail,
                "partition_id": str(partition),
                "owner_level": self._owner_level,
                "prefetch": _PREFETCH,
                "starting_position": first,
                "starting_position_inclusive": True,
            },
            name=f"event-hubs-read-{partition}",
            daemon=True,
        )
        thread.start()
        collected.done.wait(self._timeout_s)
        client.close()  # ends receive_batch, whose thread then takes a second to close its link
        records = list(collected.records)
        if not records:
            if collected.error is not None:
                raise _mapped(collected.error) from collected.error
            raise BrokerUnavailable(
                f"Event Hubs holds sequences {first} to {last} of partition {partition} and gave none "
                f"within {self._timeout_s:g} s"
            )
        return records


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Records fetched at once: everything the hub holds of `first` to `last`."""

    first: int
    last: int
    records: Sequence[LogRecord]


class _Collected:
    """What the SDK's thread hands over, until there is enough."""

    def __init__(self, source: str, partition: int, first: int, last: int, limit: int) -> None:
        self._source = source
        self._partition = partition
        self._first = first
        self._last = last
        self._limit = limit
        self.records: list[LogRecord] = []
        self.error: Exception | None = None
        self.done = threading.Event()

    def take(self, _: PartitionContext, events: list[EventData]) -> None:
        for event in events:
            if self.done.is_set():
                return
            record = record_of(event, self._source, self._partition)
            if record.sequence >= self._first:
                self.records.append(record)
            if record.sequence >= self._last or len(self.records) >= self._limit:
                self.done.set()

    def fail(self, _: PartitionContext | None, error: Exception) -> None:
        self.error = error
        self.done.set()


def record_of(event: EventData, source: str, partition: int) -> LogRecord:
    """The record that an event read from the hub is. Raises InfrastructureFault when its coordinates are missing."""
    sequence, enqueued = event.sequence_number, event.enqueued_time
    if sequence is None or enqueued is None:
        raise InfrastructureFault(f"a record of partition {partition} came without its sequence number or instant")
    content: Any = event.body
    body = b"".join(content) if event.body_type is AmqpMessageBodyType.DATA else str(content).encode()
    return LogRecord(source, partition, sequence, to_ms(enqueued), body)


def _newest(properties: dict[str, Any]) -> int | None:
    """The newest sequence ever given out; the hub says -1 where there is none."""
    last = int(properties["last_enqueued_sequence_number"])
    return None if last < 0 else last


def _mapped(error: Exception) -> Exception:
    if isinstance(error, (EventHubError, AzureError, OSError)):
        return BrokerUnavailable(f"Event Hubs does not answer: {type(error).__name__}: {error}".splitlines()[0])
    return error
