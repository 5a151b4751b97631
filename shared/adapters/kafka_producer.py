"""The producer's side of a Kafka topic: idempotent, acknowledged by all in-sync replicas, partitions chosen by us."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer

from shared.adapters.kafka_connection import ErrorLog, KafkaConnection, check_topic
from shared.errors import BrokerUnavailable
from shared.events import partition_of
from shared.ports import Appended

log = logging.getLogger(__name__)

LINGER_MS: Final = 1
BATCH_BYTES: Final = 262_144
"""A topic refuses a batch as a whole, so none may be larger than what the topic takes of one event."""
POLL_S: Final = 0.1
"""Delivery reports wake the poll at once; so often it looks whether it should end."""
CLOSE_TIMEOUT_S: Final = 5.0

_QUEUE_FULL: Final = KafkaError._QUEUE_FULL  # noqa: SLF001 - so does librdkafka name its own codes

Report = Callable[[KafkaError | None, Any], None]
"""Hears what became of an event: an error, or the message with its coordinates."""


class KafkaEventLog:
    """EventLog over one topic; calls from several threads share one producer. It connects with the first call.

    librdkafka stops trying to deliver an event when the timeout is over, within about a second. What the broker took
    while its answer was lost, or takes in that second, is in the log although the caller was told otherwise: the same
    event_id sent again counts once.
    """

    def __init__(self, connection: KafkaConnection, partition_count: int, *, timeout_ms: int) -> None:
        """`timeout_ms` bounds `append` once it is connected; the first call also looks at the topic."""
        self._connection = connection
        self._partition_count = partition_count
        self._timeout_s = timeout_ms / 1000
        self._opening = threading.Lock()
        self._session: _Session | None = None

    def append(self, events: Sequence[tuple[str, bytes]]) -> list[Appended | None]:
        """See EventLog."""
        count = self._partition_count
        return self._append([(key.encode(), partition_of(key, count), body) for key, body in events])

    def append_to(self, events: Sequence[tuple[int, bytes]]) -> list[Appended | None]:
        """See EventLog; these messages have no key."""
        return self._append([(None, partition, body) for partition, body in events])

    def _append(self, messages: Sequence[tuple[bytes | None, int, bytes]]) -> list[Appended | None]:
        session = self._opened()
        pending = _Pending(len(messages))
        for index, (key, partition, body) in enumerate(messages):
            session.produce(key, body, partition, _report(pending, index, session))
        appended = pending.wait(self._timeout_s)
        if session.broken:
            self._replace(session)
        if messages and not any(appended):
            raise BrokerUnavailable(f"Kafka acknowledged nothing: {pending.reason or 'no answer in time'}")
        return appended

    def connect_ahead(self) -> None:
        """Connect in a thread of its own: a new producer's first acknowledgement takes a second on a new broker."""
        threading.Thread(target=self._connect, name="kafka-connect", daemon=True).start()

    def close(self) -> None:
        """Deliver what is under way and end."""
        with self._opening:
            session, self._session = self._session, None
        if session is not None:
            session.close(CLOSE_TIMEOUT_S)

    def _connect(self) -> None:
        try:
            self._opened()
        except BrokerUnavailable as error:
            log.warning("%s; the first event tries again", error)

    def _opened(self) -> _Session:
        session = self._session
        if session is not None:
            return session
        with self._opening:
            if self._session is None:
                most = check_topic(self._connection, self._partition_count, timeout_s=self._timeout_s)
                self._session = _Session(self._connection, self._timeout_s, most)
            return self._session

    def _replace(self, session: _Session) -> None:
        """After a fatal error an idempotent producer does nothing more; the next call makes another."""
        with self._opening:
            if self._session is session:
                self._session = None
        session.close(0.0)


class _Session:
    """One producer and the thread that serves its delivery reports."""

    def __init__(self, connection: KafkaConnection, timeout_s: float, most_batch_bytes: int | None) -> None:
        options = connection.options(
            **{
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": LINGER_MS,
                "batch.size": min(most_batch_bytes or BATCH_BYTES, BATCH_BYTES),
                "message.timeout.ms": max(LINGER_MS + 1, int(timeout_s * 1000)),
                "partitioner": "murmur2_random",  # never asked: every event names its partition
                "error_cb": self._on_error,
            }
        )
        self._topic = connection.address.topic
        self.broken = False
        self._error_log = ErrorLog("Kafka producer")
        try:
            self._producer = Producer(options)
        except KafkaException as error:
            raise BrokerUnavailable(f"no Kafka producer: {error.args[0].str()}") from error
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka-deliveries", daemon=True)
        self._thread.start()

    def produce(self, key: bytes | None, body: bytes, partition: int, report: Report) -> None:
        """Hand one event over; `report` hears what became of it, from another thread or at once."""
        try:
            self._producer.produce(self._topic, body, key, partition, report)
        except BufferError:
            report(KafkaError(_QUEUE_FULL), None)
        except KafkaException as error:
            report(error.args[0], None)

    def close(self, timeout_s: float) -> None:
        """Wait for what is under way, then end the thread."""
        self._producer.flush(timeout_s)
        self._ended.set()
        self._thread.join(POLL_S + 1)

    def _serve(self) -> None:
        while not self._ended.is_set():
            self._producer.poll(POLL_S)

    def _on_error(self, error: KafkaError) -> None:
        self.broken = self.broken or error.fatal()
        self._error_log(error)


class _Pending:
    """The answers that one call waits for."""

    def __init__(self, count: int) -> None:
        self._appended: list[Appended | None] = [None] * count
        self._left = count
        self._changed = threading.Condition()
        self.reason = ""

    def settle(self, index: int, appended: Appended | None, reason: str = "") -> None:
        with self._changed:
            self._appended[index] = appended
            self._left -= 1
            self.reason = reason or self.reason
            if not self._left:
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> list[Appended | None]:
        """What was acknowledged until all have an answer or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left, timeout_s)
            return list(self._appended)


def _report(pending: _Pending, index: int, session: _Session) -> Report:
    def report(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            session.broken = session.broken or error.fatal()
            pending.settle(index, None, error.str())
            return
        partition, offset = message.partition(), message.offset()
        assert partition is not None, "a delivered message has its coordinates"
        kind, at = message.timestamp()
        pending.settle(
            index,
            Appended(
                partition,
                offset if offset is not None and offset >= 0 else None,
                at if kind == TIMESTAMP_LOG_APPEND_TIME else None,
            ),
        )

    return report
