"""Random access to what a Kafka topic still holds; its clock must be the broker's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, Message, TopicPartition

from shared.adapters.kafka_connection import ErrorLog, KafkaAddress, KafkaConnection, check_topic, clock_fault
from shared.errors import BrokerUnavailable
from shared.ports import LogRecord

FETCH_WAIT_MS: Final = 20
"""A new position waits behind the fetch under way; a long one gains nothing, as reads end where the log is known to."""

_END_OF_PARTITION: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - so does librdkafka name its own codes


def record_of(message: Message, source: str, address: KafkaAddress) -> LogRecord:
    """The record of a message: its offset is the sequence, its LogAppendTime the instant.

    Raises:
        BrokerUnavailable: the message carries its producer's clock, which nothing may be decided by; the text says
            what to do.
    """
    kind, at = message.timestamp()
    if kind != TIMESTAMP_LOG_APPEND_TIME:
        raise BrokerUnavailable(clock_fault(address))
    partition, offset = message.partition(), message.offset()
    assert partition is not None, "a message that was read has its coordinates"
    assert offset is not None, "as above"
    return LogRecord(source, partition, offset, at, message.value() or b"")


class KafkaLog:
    """RetainedLog over one topic; its calls take turns. It connects with the first one.

    Offsets are sequences. Those that hold no record (transaction markers, compacted records) are never read, which the
    gap rule takes for what it is. Only committed records are read.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        source: str,
        partition_count: int,
        *,
        timeout_ms: int,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeout_ms` bounds each wait for the broker."""
        self._connection = connection
        self._source = source
        self._partition_count = partition_count
        self._timeout_s = timeout_ms / 1000
        self._seconds = seconds
        self._turn = threading.Lock()
        self._consumer: Consumer | None = None

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
        """See EventLogReader. An empty answer means that there is nothing; a broker that does not answer raises."""
        first = after_sequence + 1
        with self._connected() as consumer:
            _, end = self._watermarks(consumer, partition)
            if first >= end:
                return []
            consumer.assign([TopicPartition(self._connection.address.topic, partition, first)])
            try:
                return self._records(consumer, first, end, limit)
            finally:
                consumer.unassign()

    def last_sequence(self, partition: int) -> int | None:
        """See EventLogReader: the high watermark less one."""
        with self._connected() as consumer:
            _, end = self._watermarks(consumer, partition)
        return end - 1 if end else None

    def first_sequence(self, partition: int) -> int:
        """See RetainedLog: the low watermark."""
        with self._connected() as consumer:
            start, _ = self._watermarks(consumer, partition)
        return start

    def trim_below(self, partition: int, sequence: int) -> None:
        """Nothing: what a topic keeps, and for how long, is for its own retention rules to say."""

    def close(self) -> None:
        """End the connection."""
        with self._turn:
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                consumer.close()

    @contextmanager
    def _connected(self) -> Iterator[Consumer]:
        with self._turn:
            try:
                if self._consumer is None:
                    check_topic(self._connection, self._partition_count, timeout_s=self._timeout_s)
                    self._consumer = Consumer(self._options())
                self._consumer.poll(0)  # serves what waited since the last call: a bearer token that is due
                yield self._consumer
            except KafkaException as error:
                raise BrokerUnavailable(f"Kafka does not answer: {error.args[0].str()}") from error

    def _options(self) -> dict[str, object]:
        return self._connection.options(
            **{
                "group.id": "recommndr-refill",  # librdkafka wants one; nothing joins it or commits to it
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                "error_cb": ErrorLog("Kafka reader"),
                "queued.max.messages.kbytes": 16_384,
            }
        )

    def _watermarks(self, consumer: Consumer, partition: int) -> tuple[int, int]:
        asked = TopicPartition(self._connection.address.topic, partition)
        answer = consumer.get_watermark_offsets(asked, timeout=self._timeout_s)
        if answer is None:
            raise BrokerUnavailable(f"Kafka does not tell how far partition {partition} reaches")
        return answer

    def _records(self, consumer: Consumer, first: int, end: int, limit: int) -> list[LogRecord]:
        """What lies from `first` on, ascending, up to `limit` records or the offset before `end`."""
        records: list[LogRecord] = []
        deadline = self._seconds() + self._timeout_s
        while len(records) < limit:
            message = consumer.poll(max(0.0, deadline - self._seconds()))
            if message is None:
                if records:
                    return records
                raise BrokerUnavailable(f"Kafka did not give the records from {first} on in time")
            # `consume` waits until it has as many as it was asked for; with no time to wait it takes what is there.
            for one in (message, *consumer.consume(limit - len(records) - 1, timeout=0)):
                if self._is_end(one):
                    return records
                record = record_of(one, self._source, self._connection.address)
                if record.sequence >= first:
                    records.append(record)
                if record.sequence >= end - 1:
                    return records
        return records

    @staticmethod
    def _is_end(message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.code() == _END_OF_PARTITION:
            return True
        raise BrokerUnavailable(f"Kafka did not give the records: {error.str()}")
