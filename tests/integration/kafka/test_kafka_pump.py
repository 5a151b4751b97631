"""Consumers of one group: offsets follow the state, partitions come and go, one is killed; nothing is lost or twice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis

from local.embedded import EmbeddedServers
from local.event_pump import RetryPolicy
from local.kafka_pump import KafkaPump
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.kafka_connection import KafkaConnection, connection_of
from shared.adapters.kafka_log import KafkaLog
from shared.adapters.kafka_producer import KafkaEventLog
from shared.adapters.redis_state import RedisStateStore
from shared.errors import BrokerUnavailable, StateUnavailable
from shared.ingest.processor import EventProcessor
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord, Touched
from shared.settings import Settings
from tests.integration.conftest import HeldBroker, World, make_bodies
from tests.integration.kafka.conftest import PARTITIONS, MakeTopic

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.timeout(300)]
SOURCE = "live-1"
PATIENCE_S = 60.0
SESSION_MS = 1500
QUICK = RetryPolicy(first_delay_s=0.05, longest_delay_s=0.1)


class Handler:
    """Remembers what went through; raises while `faults` holds the partition."""

    def __init__(self, *faults: int) -> None:
        self.seen: list[tuple[int, int]] = []
        self.raised: set[int] = set()
        self.faults = set(faults)

    def __call__(self, records: Sequence[LogRecord]) -> None:
        partition = records[0].partition
        if partition in self.faults:
            self.raised.add(partition)
            raise StateUnavailable("not now")
        assert {record.partition for record in records} == {partition}
        self.seen += [(record.partition, record.sequence) for record in records]

    def of(self, partition: int) -> list[int]:
        return [sequence for where, sequence in self.seen if where == partition]


@contextmanager
def pumping(connection: KafkaConnection, handler: Handler) -> Iterator[KafkaPump]:
    pump = KafkaPump(connection, SOURCE, handler, batch_size=4, retry=QUICK, session_timeout_ms=SESSION_MS)
    pump.start()
    try:
        yield pump
    finally:
        pump.stop()


def eventually(true: Callable[[], Any], said: str = "it never came true") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, said
        time.sleep(0.05)


def append(connection: KafkaConnection, count: int) -> list[tuple[int, int]]:
    events = [(f"user-{number}", b"%d" % number) for number in range(count)]
    with closing(KafkaEventLog(connection, PARTITIONS, timeout_ms=20_000)) as producer:
        answers = producer.append(events)
    return [(one.partition, one.sequence) for one in answers if one is not None and one.sequence is not None]


def committed(connection: KafkaConnection) -> dict[int, int]:
    """What the group has committed, by partition; below 0 where nothing is."""
    consumer = Consumer(connection.options(**{"group.id": f"recommndr-{SOURCE}"}))
    try:
        asked = [TopicPartition(connection.address.topic, part) for part in range(PARTITIONS)]
        return {one.partition: one.offset for one in consumer.committed(asked, timeout=20)}
    finally:
        consumer.close()


def test_a_partition_whose_batch_raises_waits_and_the_others_go_on(connection: KafkaConnection) -> None:
    published = append(connection, 40)
    wanted = {part: [sequence for where, sequence in published if where == part] for part in range(PARTITIONS)}
    handler = Handler(0)
    with pumping(connection, handler):
        eventually(lambda: handler.of(1) == wanted[1] and handler.raised)
        assert handler.of(0) == []
    assert committed(connection)[0] < 0, "what is not in is offered to the next one"
    assert committed(connection)[1] == len(wanted[1])
    again = Handler()
    with pumping(connection, again):
        eventually(lambda: again.of(0) == wanted[0])
    assert again.of(1) == []
    assert committed(connection) == {part: len(wanted[part]) for part in range(PARTITIONS)}


def test_what_is_being_retried_goes_to_the_consumer_that_takes_the_partition_and_comes_back(
    connection: KafkaConnection,
) -> None:
    wanted = sorted(append(connection, 40))
    stuck, sound = Handler(0, 1), Handler()
    with pumping(connection, stuck):
        eventually(lambda: stuck.raised == {0, 1})
        with pumping(connection, sound):
            eventually(lambda: sound.seen, "the second consumer got no partition")
            moved = {where for where, _ in sound.seen}
            assert len(moved) == 1, "each has one"
            part = moved.pop()
            eventually(lambda: sound.of(part) == [sequence for where, sequence in wanted if where == part])
        assert stuck.seen == []
        stuck.faults.clear()
        more = append(connection, 40)
        eventually(lambda: sorted(stuck.seen + sound.seen) == sorted(wanted + more))
        assert sorted(stuck.of(part)) == sorted(sequence for where, sequence in more if where == part)


def test_a_record_with_its_producers_clock_is_never_handed_over(make_topic: MakeTopic) -> None:
    connection = make_topic(message_timestamp_type="CreateTime")
    with pytest.raises(BrokerUnavailable):
        append(connection, 1)
    other = Producer(connection.options())
    other.produce(connection.address.topic, b"{}", b"k", 0)
    other.flush(20)
    handler = Handler()
    pump = KafkaPump(connection, SOURCE, handler, retry=QUICK, session_timeout_ms=SESSION_MS)
    pump.start()
    eventually(lambda: pump._held)
    pump.stop()
    assert handler.seen == []
    assert committed(connection)[0] < 0


@pytest.fixture
def environment(make_topic: MakeTopic, servers: EmbeddedServers, tmp_path: Path) -> dict[str, str]:
    connection = make_topic(4)
    return {
        "REDIS_URL": servers.state_url,
        "EVENT_LOG_URL": f"kafka://{connection.address.brokers}/{connection.address.topic}",
        "BLOB_URL": str(tmp_path),
        "PARTITION_COUNT": "4",
    }


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.integration.kafka.pump_worker", str(SESSION_MS)]
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_consumer_killed_amid_its_work_costs_nothing_and_counts_nothing_twice(
    environment: dict[str, str], state_client: Redis, tmp_path: Path
) -> None:
    settings = Settings.from_environment(environment)
    connection, partitions = connection_of(settings), range(4)
    store = RedisStateStore(state_client, settings.user_key_secret)
    blobs = FolderBlobStore(tmp_path)
    bodies = make_bodies(1500, 11)
    stop = threading.Event()

    with (
        closing(KafkaEventLog(connection, 4, timeout_ms=20_000)) as producer,
        closing(KafkaLog(connection, SOURCE, 4, timeout_ms=20_000)) as log,
    ):

        def post() -> None:
            for start in range(0, len(bodies), 30):
                producer.append([(f"user-{place}", body) for place, body in enumerate(bodies[start : start + 30])])
                if stop.wait(0.03):
                    return

        def marks() -> list[int]:
            found = (store.read(SOURCE, part, [CURRENT_VERSION.name], Touched()).log_mark for part in partitions)
            return [-1 if mark is None else mark.sequence for mark in found]

        thread = threading.Thread(target=post, daemon=True)
        with worker(environment) as first, worker(environment) as second:
            eventually(lambda: shares(connection) == [2, 2], "the two do not share the partitions")
            thread.start()
            eventually(lambda: sum(marks()) > 200)
            first.kill()
            thread.join(PATIENCE_S)
            eventually(lambda: marks() == [log.last_sequence(part) for part in partitions], "it never caught up")
            assert second.poll() is None
        world = World(state_client, store, blobs, HeldBroker())
        found = world.shards()
        state_client.flushall()
        clean = EventProcessor(SOURCE, store=store, versions=(CURRENT_VERSION,), blobs=blobs, broker=log)
        for part in partitions:
            clean.process(log.read(part, -1, 10_000))
        assert world.shards() == found
        assert sum(marks()) == len(bodies) - 4


def shares(connection: KafkaConnection) -> list[int]:
    """How many partitions each member of the group has."""
    group = f"recommndr-{SOURCE}"
    admin = AdminClient(connection.options())
    described = admin.describe_consumer_groups([group])[group].result(20)
    return [len(member.assignment.topic_partitions) for member in described.members]
