"""What every broker log must do, said once and asked of the embedded one and of a real Kafka topic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from local.embedded import EmbeddedServers
from shared.adapters.kafka_connection import KafkaConnection
from shared.adapters.kafka_log import KafkaLog
from shared.adapters.kafka_producer import KafkaEventLog
from shared.adapters.redis_connection import connect
from shared.adapters.redis_log import RedisEventLog
from shared.events import partition_of
from shared.ports import Appended, EventLog, RetainedLog

pytestmark = pytest.mark.xdist_group("kafka")
SOURCE = "live-1"
PARTITIONS = 2
Sides = tuple[EventLog, RetainedLog]


@contextmanager
def embedded(request: pytest.FixtureRequest) -> Iterator[Sides]:
    servers: EmbeddedServers = request.getfixturevalue("servers")
    with connect(servers.log_url, timeout_ms=5000) as client:
        log = RedisEventLog(client, SOURCE, PARTITIONS)
        yield log, log


@contextmanager
def kafka(request: pytest.FixtureRequest) -> Iterator[Sides]:
    connection: KafkaConnection = request.getfixturevalue("connection")
    producer = KafkaEventLog(connection, PARTITIONS, timeout_ms=5000)
    reader = KafkaLog(connection, SOURCE, PARTITIONS, timeout_ms=5000)
    yield producer, reader
    producer.close()
    reader.close()


@pytest.fixture(params=[embedded, kafka], ids=["embedded", "kafka"])
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    opened: Callable[[pytest.FixtureRequest], Any] = request.param
    with opened(request) as both:
        yield both


def acknowledged(answers: Sequence[Appended | None]) -> list[tuple[int, int]]:
    found = [(one.partition, one.sequence) for one in answers if one is not None and one.sequence is not None]
    assert len(found) == len(answers)
    return found


def keys_of(partition: int, count: int) -> list[str]:
    keys = (f"user-{number}" for number in range(10_000))
    return [key for key in keys if partition_of(key, PARTITIONS) == partition][:count]


def test_what_is_appended_is_read_where_it_was_put(sides: Sides) -> None:
    producer, reader = sides
    events = [(f"user-{number}", b"body %d" % number) for number in range(60)]
    places = acknowledged(producer.append(events))
    assert [partition for partition, _ in places] == [partition_of(key, PARTITIONS) for key, _ in events]
    for partition in range(PARTITIONS):
        wanted = [
            (sequence, body) for (where, sequence), (_, body) in zip(places, events, strict=True) if where == partition
        ]
        assert [sequence for sequence, _ in wanted] == list(range(len(wanted))), "in the order they were given"
        records = reader.read(partition, -1, 1000)
        assert [(one.sequence, one.body) for one in records] == wanted
        assert {(one.source, one.partition) for one in records} == {(SOURCE, partition)}
        instants = [one.enqueued_at for one in records]
        assert instants == sorted(instants)
        assert min(instants) > 1_700_000_000_000
        assert reader.last_sequence(partition) == wanted[-1][0]


def test_what_names_its_partition_goes_there(sides: Sides) -> None:
    producer, reader = sides
    places = acknowledged(producer.append_to([(1, b"first"), (0, b"copy"), (1, b"copy")]))
    assert [partition for partition, _ in places] == [1, 0, 1]
    assert [[one.body for one in reader.read(partition, -1, 9)] for partition in range(PARTITIONS)] == [
        [b"copy"],
        [b"first", b"copy"],
    ]


def test_reading_goes_on_where_it_is_told_and_stops_at_the_limit(sides: Sides) -> None:
    producer, reader = sides
    producer.append([(key, b"%d" % number) for number, key in enumerate(keys_of(1, 30))])
    assert [one.sequence for one in reader.read(1, 9, 5)] == [10, 11, 12, 13, 14]
    assert [one.sequence for one in reader.read(1, 27, 50)] == [28, 29]
    assert reader.read(1, 29, 50) == []
    assert reader.read(1, 400, 50) == []
    assert [one.sequence for one in reader.read(1, -1, 1)] == [0]


def test_a_partition_that_was_never_written_to_is_empty(sides: Sides) -> None:
    producer, reader = sides
    producer.append([(keys_of(0, 1)[0], b"x")])
    assert reader.read(1, -1, 10) == []
    assert reader.last_sequence(1) is None
    assert reader.first_sequence(1) == 0
    assert reader.last_sequence(0) == 0


def test_nothing_appended_is_nothing_acknowledged(sides: Sides) -> None:
    assert sides[0].append([]) == []


def test_bodies_come_back_byte_for_byte(sides: Sides) -> None:
    producer, reader = sides
    bodies = [b"", b"\x00\xff\r\n", "ü".encode(), b"x" * 60_000]
    key = keys_of(0, 1)[0]
    producer.append([(key, body) for body in bodies])
    assert [one.body for one in reader.read(0, -1, 10)] == bodies


def test_several_threads_append_at_once_and_each_hears_of_its_own(sides: Sides) -> None:
    producer, reader = sides
    heard: dict[bytes, tuple[int, int]] = {}

    def post(name: int) -> None:
        for turn in range(8):
            events = [(f"user-{name}-{number}", b"%d %d %d" % (name, turn, number)) for number in range(5)]
            for (_, body), place in zip(events, acknowledged(producer.append(events)), strict=True):
                heard[body] = place

    threads = [Thread(target=post, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    held = {
        one.body: (one.partition, one.sequence) for part in range(PARTITIONS) for one in reader.read(part, -1, 1000)
    }
    assert held == heard
    assert len(held) == 4 * 8 * 5
