"""Hands a Kafka topic's records to the event function: one consumer of a group, offsets committed after the state."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from local.event_pump import RetryPolicy
from shared.adapters.kafka_connection import ErrorLog, KafkaConnection
from shared.adapters.kafka_log import record_of
from shared.ports import LogRecord

log = logging.getLogger(__name__)

IDLE_S: Final = 0.2
SESSION_TIMEOUT_MS: Final = 10_000
"""So long after a consumer was killed its partitions go to another one."""
CLOSING_S: Final = 15.0
UNLIMITED: Final = RetryPolicy(longest_delay_s=1.0)


@dataclass(slots=True)
class _Held:
    """A batch that raised: its partition is paused until it went through, or is taken away."""

    messages: list[Message]
    attempts: int
    due_s: float


class KafkaPump:
    """One consumer thread. A batch holds one partition's records; an offset is committed when its batch is in.

    A batch that raises is offered again without limit, and meanwhile its partition waits, the others go on. Between
    two batches partitions come and go: what is taken away while it is being retried is given up without its offset,
    and the next owner starts there. What is offered twice the partition's mark tells.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        source: str,
        handler: Callable[[Sequence[LogRecord]], None],
        *,
        batch_size: int = 256,
        retry: RetryPolicy = UNLIMITED,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """All pumps of a source share its work, as one consumer group."""
        self._connection = connection
        self._topic = connection.address.topic
        self._source = source
        self._handler = handler
        self._batch_size = batch_size
        self._retry = retry
        self._session_timeout_ms = session_timeout_ms
        self._seconds = seconds
        self._held: dict[int, _Held] = {}
        self._folded: dict[int, int] = {}
        self._owned: set[int] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run in a thread of its own."""
        self._stop.clear()
        self._thread = threading.Thread(target=self.run, name="kafka-pump", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = CLOSING_S) -> None:
        """End after the call under way and leave the group, so that others need not wait for our silence."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None

    def run(self) -> None:
        """Pump until `stop`; a consumer that fails as a whole is opened anew."""
        failures = 0
        while not self._stop.is_set():
            try:
                consumer = Consumer(self._options())
                try:
                    consumer.subscribe(
                        [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
                    )
                    while not self._stop.is_set():
                        self._pump_once(consumer)
                        failures = 0
                finally:
                    consumer.close()
            except KafkaException as error:
                failures += 1
                log.warning("kafka pump: %s", error.args[0].str())
                self._stop.wait(self._retry.delay_s(failures))

    def _options(self) -> dict[str, Any]:
        return self._connection.options(
            **{
                "group.id": f"recommndr-{self._source}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": self._session_timeout_ms,
                "heartbeat.interval.ms": self._session_timeout_ms // 4,
                "queued.max.messages.kbytes": 16_384,
                "error_cb": ErrorLog("kafka pump"),
                "on_commit": self._committed,
            }
        )

    def _pump_once(self, consumer: Consumer) -> None:
        """Offer what has come, a batch a partition, and what is due to be offered again."""
        first = consumer.poll(self._patience_s())
        batches: dict[int, list[Message]] = defaultdict(list)
        if first is not None:
            # `consume` waits until it has as many as it was asked for; with no time to wait it takes what is there.
            for message in (first, *consumer.consume(self._batch_size - 1, timeout=0)):
                error = message.error()
                if error is not None:
                    log.warning("kafka pump: %s", error.str())
                    continue
                partition = message.partition()
                assert partition is not None, "a message that was read has its coordinates"
                batches[partition].append(message)
        for partition, messages in batches.items():
            held = self._held.get(partition)
            if partition not in self._owned:
                continue  # taken away since it was read
            if held is None:
                self._offer(consumer, partition, messages, attempts=0)
            else:
                held.messages += messages
        for partition, held in list(self._held.items()):
            if self._stop.is_set():
                return
            if held.due_s <= self._seconds() and self._held.get(partition) is held:
                self._offer(consumer, partition, held.messages, held.attempts)

    def _patience_s(self) -> float:
        due_s = min((held.due_s for held in self._held.values()), default=float("inf"))
        return max(0.0, min(IDLE_S, due_s - self._seconds()))

    def _offer(self, consumer: Consumer, partition: int, messages: list[Message], attempts: int) -> None:
        place = TopicPartition(self._topic, partition)
        first, last = messages[0].offset(), messages[-1].offset()
        assert last is not None, "as above"
        try:
            self._handler([record_of(message, self._source, self._connection.address) for message in messages])
        except Exception:
            log.warning("kafka pump: partition %d, offsets %s to %s raised", partition, first, last, exc_info=True)
            if attempts == 0:
                consumer.pause([place])
            due_s = self._seconds() + self._retry.delay_s(attempts + 1)
            self._held[partition] = _Held(messages, attempts + 1, due_s)
            return
        self._folded[partition] = last + 1
        # Without waiting for the answer: an offset that lags costs a redelivery, which the mark tells.
        consumer.commit(offsets=[TopicPartition(self._topic, partition, last + 1)], asynchronous=True)
        if self._held.pop(partition, None) is not None:
            consumer.resume([place])

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """From what is committed on; a partition that was paused when it was taken away is not any more."""
        log.info("kafka pump: got partitions %s", _numbers(partitions))
        consumer.incremental_assign(partitions)
        consumer.resume(partitions)
        self._owned.update(one.partition for one in partitions)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """The next owner starts at what is committed: say now, and to the end, how far we came."""
        log.info("kafka pump: gives up partitions %s", _numbers(partitions))
        reached = [
            TopicPartition(self._topic, one.partition, self._folded[one.partition])
            for one in partitions
            if one.partition in self._folded
        ]
        self._forget(partitions)
        if reached:
            try:
                consumer.commit(offsets=reached, asynchronous=False)
            except KafkaException as error:
                log.warning("kafka pump: offsets not committed, they will be read again: %s", error.args[0].str())

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning("kafka pump: partitions %s went to another consumer", _numbers(partitions))
        self._forget(partitions)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self._owned.discard(one.partition)
            self._held.pop(one.partition, None)
            self._folded.pop(one.partition, None)

    @staticmethod
    def _committed(error: KafkaError | None, _partitions: list[TopicPartition]) -> None:
        if error is not None:
            log.warning("kafka pump: offsets not committed, they will be read again: %s", error.str())


def _numbers(partitions: list[TopicPartition]) -> str:
    return ", ".join(str(one.partition) for one in partitions) or "none"
