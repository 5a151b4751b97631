"""The producer's side of Event Hubs over AMQP: we choose the partition, and every event has its own answer."""

from __future__ import annotations

import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from azure.core.exceptions import AzureError
from azure.eventhub import EventData, EventDataBatch, EventHubProducerClient
from azure.eventhub.exceptions import EventDataSendError, EventHubError

from shared.errors import BrokerUnavailable, EventsRefused
from shared.events import partition_of
from shared.ports import Appended

log = logging.getLogger(__name__)

STUCK_S = 30.0
"""A sender that has been in one call of the SDK for so long is left to itself and replaced."""
MOST_WAITING = 64
"""Requests that may wait for one partition's sender; those beyond are told at once."""
CLOSING_S = 2.0

OpenClient = Callable[[], EventHubProducerClient]
Seconds = Callable[[], float]


class EventHubsEventLog:
    """EventLog over one event hub. Each partition has its own sender, so that one that hangs holds up no other.

    The SDK can wait for ever (it negotiates on a blocking socket, it polls until a link is attached) and promises
    nothing across threads. So each client belongs to one thread and the caller stops waiting at its deadline; what was
    under way then may still arrive, and a second sending with the same event_id counts once.
    """

    def __init__(self, open_client: OpenClient, partition_count: int, *, timeout_ms: int, seconds: Seconds) -> None:
        """`timeout_ms` bounds `append`; `seconds` is a monotonic clock."""
        self._senders = [_PartitionSender(open_client, str(number), seconds) for number in range(partition_count)]
        self._timeout_s = timeout_ms / 1000
        self._seconds = seconds
        self._connecting = False

    def append(self, events: Sequence[tuple[str, bytes]]) -> list[Appended | None]:
        """See EventLog."""
        return self.append_to([(partition_of(key, len(self._senders)), body) for key, body in events])

    def append_to(self, events: Sequence[tuple[int, bytes]]) -> list[Appended | None]:
        """See EventLog; Event Hubs tells no sequence. After an unacknowledged batch its partition gets nothing more.

        What names a partition that the hub does not have is not acknowledged.
        """
        if not self._connecting:  # all at once, so that the first request to each partition need not wait in turn
            self._connecting = True
            for sender in self._senders:
                sender.begin([], self._seconds())
        groups: dict[int, list[int]] = defaultdict(list)
        for index, (partition, _) in enumerate(events):
            if partition < len(self._senders):
                groups[partition].append(index)
        deadline = self._seconds() + self._timeout_s
        sends = {
            partition: self._senders[partition].begin([events[index][1] for index in indexes], deadline)
            for partition, indexes in groups.items()
        }
        appended: list[Appended | None] = [None] * len(events)
        for partition, send in sends.items():
            send.wait(max(0.0, deadline - self._seconds()))
            for place in send.acknowledged():
                appended[groups[partition][place]] = Appended(partition, None)
        if events and not any(appended):
            reasons = {send.reason for send in sends.values()} or {"the hub has no such partition"}
            refused = bool(sends) and all(send.refused for send in sends.values())
            fault = EventsRefused if refused else BrokerUnavailable
            raise fault(f"Event Hubs acknowledged nothing: {'; '.join(sorted(reasons))}")
        return appended

    def close(self) -> None:
        """End the senders and their connections; what hangs is left to end with the process."""
        for sender in self._senders:
            sender.end()
        for sender in self._senders:
            sender.join(CLOSING_S)


@dataclass
class _Send:
    """What one request wants of one partition, and how far it came."""

    bodies: Sequence[bytes]
    deadline: float
    reason: str = "no answer in time"
    refused: bool = False
    defect: Exception | None = None
    _acknowledged: set[int] = field(default_factory=set)
    _done: threading.Event = field(default_factory=threading.Event)

    def acknowledge(self, places: Sequence[int]) -> None:
        self._acknowledged |= set(places)

    def finish(self, reason: str | None = None) -> None:
        if reason is not None:
            self.reason = reason
        self._done.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for the end; raises what is no fault of the service."""
        self._done.wait(timeout_s)
        if self.defect is not None:
            raise self.defect

    def acknowledged(self) -> list[int]:
        """The places of the acknowledged bodies so far."""
        return sorted(self._acknowledged)


class _PartitionSender:
    """Hands requests to the partition's thread, in order; replaces a thread that never comes back."""

    def __init__(self, open_client: OpenClient, partition: str, seconds: Seconds) -> None:
        self._open_client = open_client
        self._partition = partition
        self._seconds = seconds
        self._lock = threading.Lock()
        self._thread: _SenderThread | None = None

    def begin(self, bodies: Sequence[bytes], deadline: float) -> _Send:
        send = _Send(bodies, deadline)
        with self._lock:
            if self._thread is not None and self._thread.busy_s() > STUCK_S:
                self._thread.end()
                self._thread = None
            if self._thread is None:
                self._thread = _SenderThread(self._open_client, self._partition, self._seconds)
                self._thread.start()
            if not self._thread.offer(send):
                send.finish("too many requests wait for the partition")
        return send

    def end(self) -> None:
        with self._lock:
            if self._thread is not None:
                self._thread.end()

    def join(self, timeout_s: float) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout_s)


class _SenderThread(threading.Thread):
    """The one user of one client."""

    def __init__(self, open_client: OpenClient, partition: str, seconds: Seconds) -> None:
        super().__init__(name=f"event-hubs-{partition}", daemon=True)
        self._open_client = open_client
        self._partition = partition
        self._seconds = seconds
        self._sends: queue.Queue[_Send | None] = queue.Queue(MOST_WAITING)
        self._ended = threading.Event()
        self._busy_since: float | None = None
        self._client: EventHubProducerClient | None = None

    def offer(self, send: _Send) -> bool:
        """Take it, unless too many wait."""
        try:
            self._sends.put_nowait(send)
        except queue.Full:
            return False
        return True

    def busy_s(self) -> float:
        """Since the request under way began; 0 when there is none."""
        since = self._busy_since
        return 0.0 if since is None else self._seconds() - since

    def end(self) -> None:
        """Stop after the request under way."""
        self._ended.set()
        with suppress(queue.Full):  # then it is awake
            self._sends.put_nowait(None)

    def run(self) -> None:
        """Send what is offered until `end`."""
        while (send := self._sends.get()) is not None and not self._ended.is_set():
            self._busy_since = self._seconds()
            self._send(send)
            self._busy_since = None
        if self._client is not None:
            self._client.close()

    def _send(self, send: _Send) -> None:
        try:
            if self._client is None:
                self._client = self._open_client()
            for batch, places in self._batches(self._client, send.bodies):
                left_s = send.deadline - self._seconds()
                if left_s <= 0:
                    break
                # send_batch sends once more over a new link after an error, with the same timeout again.
                self._client.send_batch(batch, timeout=left_s / 2)
                send.acknowledge(places)
        except (EventHubError, AzureError, OSError) as error:
            send.refused = isinstance(error, EventDataSendError)
            send.finish(f"partition {self._partition}: {type(error).__name__}: {error}".splitlines()[0])
        except Exception as error:  # noqa: BLE001 - the caller raises it; a thread that dies would hold up its partition
            send.defect = error
            send.finish()
        else:
            send.finish()

    def _batches(
        self, client: EventHubProducerClient, bodies: Sequence[bytes]
    ) -> Iterator[tuple[EventDataBatch, list[int]]]:
        """Full batches in order, with the places of their bodies; a body that fits into none is left out."""
        batch, places = client.create_batch(partition_id=self._partition), list[int]()
        for place, body in enumerate(bodies):
            if not _added(batch, body):
                if places:
                    yield batch, places
                    batch, places = client.create_batch(partition_id=self._partition), []
                if not _added(batch, body):
                    log.error("an event of %d bytes is larger than the hub takes and was not sent", len(body))
                    continue
            places.append(place)
        if places:
            yield batch, places


def _added(batch: EventDataBatch, body: bytes) -> bool:
    try:
        batch.add(EventData(body))
    except ValueError:  # the SDK's word for a full batch
        return False
    return True
