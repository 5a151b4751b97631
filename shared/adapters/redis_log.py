"""The embedded broker log: streams of a second server that syncs its file before it answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from shared.adapters.keys import PartitionKeys
from shared.adapters.landing_codec import sequence_of, stream_id
from shared.adapters.redis_connection import Argument, send_pipelined
from shared.adapters.redis_scripts import APPEND
from shared.errors import BrokerUnavailable, EventsRefused
from shared.events import partition_of
from shared.ports import Appended, LogRecord


@contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise BrokerUnavailable(f"the broker log does not answer: {error}") from error


class RedisEventLog:
    """EventLog and RetainedLog over one server; a sequence counts up from 0 in each partition without a hole."""

    def __init__(self, client: Redis, source: str, partition_count: int) -> None:
        self._client = client
        self._source = source
        self._partition_count = partition_count

    def append(self, events: Sequence[tuple[str, bytes]]) -> list[Appended | None]:
        """See EventLog."""
        return self.append_to([(partition_of(key, self._partition_count), body) for key, body in events])

    def append_to(self, events: Sequence[tuple[int, bytes]]) -> list[Appended | None]:
        """See EventLog; one script a partition, in one trip. An answer means that the server has synced its file.

        A partition of an earlier, higher count takes records like any other.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        for index, (partition, _) in enumerate(events):
            groups[partition].append(index)
        commands: list[tuple[Argument, ...]] = []
        for partition, indexes in groups.items():
            keys = PartitionKeys(self._source, partition)
            bodies = [events[index][1] for index in indexes]
            commands.append(("EVAL", APPEND.text, 2, keys.broker_log, keys.broker_clock, *bodies))
        with _broker_errors():
            answers = send_pipelined(self._client, commands, raise_on_error=False)
        appended: list[Appended | None] = [None] * len(events)
        for (partition, indexes), answer in zip(groups.items(), answers, strict=True):
            if isinstance(answer, Exception):
                continue
            for offset, index in enumerate(indexes):
                appended[index] = Appended(partition, int(answer[0]) + offset, int(answer[1]))
        if events and not any(appended):
            raise EventsRefused(f"the broker log refused the events: {answers[0]}")
        return appended

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
        """See EventLogReader."""
        key = PartitionKeys(self._source, partition).broker_log
        with _broker_errors():
            entries: Any = self._client.xrange(key, min=stream_id(after_sequence + 1), count=limit)
        return [
            LogRecord(self._source, partition, sequence_of(entry_id), int(fields[b"e"]), fields[b"b"])
            for entry_id, fields in entries
        ]

    def last_sequence(self, partition: int) -> int | None:
        """See EventLogReader."""
        key = PartitionKeys(self._source, partition).broker_log
        with _broker_errors():
            if not self._client.exists(key):
                return None
            info: Any = self._client.xinfo_stream(key)
        return sequence_of(info["last-generated-id"])

    def first_sequence(self, partition: int) -> int:
        """See RetainedLog."""
        key = PartitionKeys(self._source, partition).broker_log
        with _broker_errors():
            entries: Any = self._client.xrange(key, count=1)
        if entries:
            return sequence_of(entries[0][0])
        last = self.last_sequence(partition)
        return 0 if last is None else last + 1

    def trim_below(self, partition: int, sequence: int) -> None:
        """See RetainedLog."""
        key = PartitionKeys(self._source, partition).broker_log
        with _broker_errors():
            self._client.xtrim(key, minid=stream_id(sequence), approximate=False)

    def wait(self, after_sequences: Mapping[int, int], timeout_ms: int) -> None:
        """Return as soon as a partition holds more than the given sequence, after `timeout_ms` at the latest.

        `timeout_ms` must be well below the client's own timeout.
        """
        streams: Any = {
            PartitionKeys(self._source, partition).broker_log: stream_id(sequence)
            for partition, sequence in after_sequences.items()
        }
        with _broker_errors():
            self._client.xread(streams, count=1, block=max(1, timeout_ms))


class RedisCheckpoints:
    """A consumer's checkpoints, kept in the broker log's server as a broker keeps them."""

    def __init__(self, client: Redis, source: str, consumer: str = "process_events") -> None:
        self._client = client
        self._source = source
        self._consumer = consumer

    def get(self, partition: int) -> int:
        """The last sequence handed to the consumer, -1 when none was. Raises BrokerUnavailable."""
        with _broker_errors():
            value: Any = self._client.get(PartitionKeys(self._source, partition).checkpoint(self._consumer))
        return -1 if value is None else int(value)

    def set(self, partition: int, sequence: int) -> None:
        """Move the checkpoint. Raises BrokerUnavailable."""
        with _broker_errors():
            self._client.set(PartitionKeys(self._source, partition).checkpoint(self._consumer), sequence)
