"""What a real topic does to us: holes, other clocks, wrong names, a broker that is away, and who may come in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # no __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from redis import Redis

from local.kafka_broker import PASSWORD, USER, KafkaBroker
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.kafka_connection import KafkaConnection, TopicMissing, check_topic, open_connection
from shared.adapters.kafka_log import KafkaLog
from shared.adapters.kafka_producer import KafkaEventLog
from shared.adapters.redis_state import RedisStateStore
from shared.errors import BrokerUnavailable
from shared.ingest.gaps import GONE, NO_RECORD
from shared.ingest.processor import PartitionProcessor
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LandingRow, Verdict
from tests.integration.conftest import make_bodies
from tests.integration.kafka.conftest import PARTITIONS, MakeTopic, unsigned_token

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.timeout(300)]
SOURCE = "live-1"
EVENT = ("user-1", b"{}")


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def producer_of(connection: KafkaConnection, stack: ExitStack, timeout_ms: int = 3000) -> KafkaEventLog:
    return stack.enter_context(closing(KafkaEventLog(connection, PARTITIONS, timeout_ms=timeout_ms)))


def reader_of(connection: KafkaConnection, stack: ExitStack, timeout_ms: int = 3000) -> KafkaLog:
    return stack.enter_context(closing(KafkaLog(connection, SOURCE, PARTITIONS, timeout_ms=timeout_ms)))


def write(connection: KafkaConnection, bodies: Sequence[bytes], *, transaction: str | None = None) -> None:
    """Into partition 0, as somebody else's producer does; `transaction` is committed or aborted."""
    options = {"bootstrap.servers": connection.address.brokers, "linger.ms": 0}
    if transaction is None:
        producer = Producer(options)
    else:
        producer = Producer(options | {"transactional.id": f"t-{connection.address.topic}"})
        producer.init_transactions(20)
        producer.begin_transaction()
    for body in bodies:
        producer.produce(connection.address.topic, body, b"k", 0)
    producer.flush(20)
    if transaction == "committed":
        producer.commit_transaction(20)
    elif transaction == "aborted":
        producer.abort_transaction(20)


def folded(connection: KafkaConnection, stack: ExitStack, client: Redis, folder: Path) -> list[LandingRow]:
    """Landing after the processor has brought partition 0 up to the broker's last sequence."""
    store = RedisStateStore(client, "test secret")
    reader = reader_of(connection, stack)
    processor = PartitionProcessor(
        SOURCE, 0, store=store, versions=(CURRENT_VERSION,), blobs=FolderBlobStore(folder), broker=reader
    )
    processor.catch_up()
    return store.oldest_landing_rows(SOURCE, 0, 1000)


def skipped(rows: Sequence[LandingRow]) -> list[tuple[int, int, str | None]]:
    return [
        (row.sequence, row.last_sequence or row.sequence, row.reason) for row in rows if row.verdict is Verdict.SKIPPED
    ]


def covered(rows: Sequence[LandingRow]) -> list[int]:
    return [one for row in rows for one in range(row.sequence, (row.last_sequence or row.sequence) + 1)]


def test_offsets_without_a_record_are_skipped_and_nothing_else(
    connection: KafkaConnection, opened: ExitStack, state_client: Redis, tmp_path: Path
) -> None:
    bodies = make_bodies(12, 3)
    write(connection, bodies[:3])
    write(connection, bodies[3:6], transaction="committed")  # 3, 4, 5 and a marker at 6
    write(connection, bodies[6:8], transaction="aborted")  # 7 and 8 are never read, nor is the marker at 9
    write(connection, bodies[8:])
    write(connection, bodies[:2], transaction="aborted")  # the log ends with what holds no record
    rows = folded(connection, opened, state_client, tmp_path)
    assert skipped(rows) == [(6, 6, NO_RECORD), (7, 9, NO_RECORD), (14, 16, NO_RECORD)] or skipped(rows) == [
        (6, 9, NO_RECORD),
        (14, 16, NO_RECORD),
    ]
    read = [bodies[place] for place in (0, 1, 2, 3, 4, 5, 8, 9, 10, 11)]
    assert [row.body for row in rows if row.verdict is not Verdict.SKIPPED] == read
    assert covered(rows) == list(range(17))


def test_what_the_broker_deleted_is_gone_with_an_alarm(
    connection: KafkaConnection,
    opened: ExitStack,
    state_client: Redis,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(connection, make_bodies(10, 4))
    admin = AdminClient({"bootstrap.servers": connection.address.brokers})
    place = TopicPartition(connection.address.topic, 0, 4)
    admin.delete_records([place])[place].result(20)
    reader = reader_of(connection, opened)
    assert reader.first_sequence(0) == 4
    assert [one.sequence for one in reader.read(0, 1, 3)] == [4, 5, 6]
    rows = folded(connection, opened, state_client, tmp_path)
    assert skipped(rows) == [(0, 3, GONE)]
    assert covered(rows) == list(range(10))
    assert "ALARM" in caplog.text


def test_records_that_do_not_come_in_time_are_a_fault_and_never_an_empty_answer(
    connection: KafkaConnection, opened: ExitStack
) -> None:
    write(connection, [b"{}"])
    ticks = count(0, 1000)
    late = KafkaLog(connection, SOURCE, PARTITIONS, timeout_ms=3000, seconds=lambda: float(next(ticks)))
    opened.enter_context(closing(late))
    with pytest.raises(BrokerUnavailable, match="in time"):
        late.read(0, -1, 10)
    assert late.read(1, -1, 10) == [], "where nothing is, nothing is waited for"


def test_compacted_records_leave_holes(make_topic: MakeTopic, opened: ExitStack) -> None:
    connection = make_topic(
        cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.01", max_compaction_lag_ms="100"
    )
    reader = reader_of(connection, opened)
    write(connection, [b"%d" % number for number in range(6)])
    deadline = time.monotonic() + 30
    while len(reader.read(0, -1, 100)) > 3:
        assert time.monotonic() < deadline, "the broker never compacted"
        time.sleep(0.3)
        write(connection, [b"more"])  # a segment is closed by what comes after it
    kept = [one.sequence for one in reader.read(0, -1, 100)]
    assert kept == sorted(kept)
    assert kept[-1] == reader.last_sequence(0)
    assert reader.first_sequence(0) == 0
    assert reader.read(0, kept[0], 1)[0].sequence == kept[1], "reading from within a hole finds what follows it"


def test_a_topic_with_the_producers_clock_is_refused_by_both_sides(make_topic: MakeTopic, opened: ExitStack) -> None:
    connection = make_topic(message_timestamp_type="CreateTime")
    command = r"kafka-configs\.sh .* --add-config message\.timestamp\.type=LogAppendTime"
    with pytest.raises(BrokerUnavailable, match=command):
        producer_of(connection, opened).append([EVENT])
    with pytest.raises(BrokerUnavailable, match=command):
        reader_of(connection, opened).last_sequence(0)


def test_a_record_that_kept_its_producers_clock_is_refused_though_the_topic_is_right_by_now(
    make_topic: MakeTopic, opened: ExitStack
) -> None:
    connection = make_topic(message_timestamp_type="CreateTime")
    write(connection, [b"{}"])
    admin = AdminClient({"bootstrap.servers": connection.address.brokers})
    change = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, connection.address.topic, incremental_configs=[change])
    admin.incremental_alter_configs([resource])[resource].result(20)
    reader = reader_of(connection, opened)
    assert reader.last_sequence(0) == 0
    with pytest.raises(BrokerUnavailable, match="take a new topic"):
        reader.read(0, -1, 10)


def test_a_topic_that_is_missing_or_of_another_size_is_said_with_the_command(
    connection: KafkaConnection, kafka: KafkaBroker, opened: ExitStack
) -> None:
    absent = open_connection(f"kafka://{kafka.address}/nowhere")
    with pytest.raises(TopicMissing, match=r"kafka-topics\.sh .* --create --topic nowhere --partitions 2"):
        producer_of(absent, opened).append([EVENT])
    assert "nowhere" not in AdminClient({"bootstrap.servers": kafka.address}).list_topics(timeout=10).topics
    with pytest.raises(BrokerUnavailable, match=f"PARTITION_COUNT={PARTITIONS}"):
        check_topic(connection, PARTITIONS + 1, timeout_s=20)


def test_one_event_that_the_topic_refuses_takes_no_other_with_it(make_topic: MakeTopic, opened: ExitStack) -> None:
    connection = make_topic(max_message_bytes="3000")
    events = [(f"user-{number}", b"%02d" % number * (4000 if number == 7 else 20)) for number in range(30)]
    producer = producer_of(connection, opened, timeout_ms=10_000)
    answers = producer.append(events)
    assert [index for index, answer in enumerate(answers) if answer is None] == [7]
    assert all(producer.append(events[:7])), "an idempotent producer goes on after a refusal"
    with pytest.raises(BrokerUnavailable, match="too large"):
        producer.append([events[7]])
    reader = reader_of(connection, opened)
    kept = [one.body for part in range(PARTITIONS) for one in reader.read(part, -1, 1000)]
    assert sorted(kept) == sorted(body for _, body in [*events[:7], *events[8:], *events[:7]])


def eventually_appended(producer: KafkaEventLog, event: tuple[str, bytes]) -> tuple[int, int | None]:
    deadline = time.monotonic() + 30
    while True:
        try:
            (answer,) = producer.append([event])
        except BrokerUnavailable:
            assert time.monotonic() < deadline
        else:
            assert answer is not None
            return answer.partition, answer.sequence


def test_sasl_plain_lets_in_who_knows_the_password(
    kafka: KafkaBroker, connection: KafkaConnection, opened: ExitStack
) -> None:
    url = f"kafka://{kafka.sasl_address}/{connection.address.topic}"
    known = open_connection(url, sasl="plain", user=USER, password=PASSWORD)
    assert all(producer_of(known, opened).append([EVENT]))
    partition = next(part for part in range(PARTITIONS) if reader_of(known, opened).last_sequence(part) == 0)
    assert [one.body for one in reader_of(known, opened).read(partition, -1, 5)] == [EVENT[1]]
    stranger = open_connection(url, sasl="plain", user=USER, password="guessed")
    with pytest.raises(BrokerUnavailable, match="Authentication failed"):
        producer_of(stranger, opened, timeout_ms=1000).append([EVENT])
    with pytest.raises(BrokerUnavailable):
        producer_of(open_connection(url), opened, timeout_ms=1000).append([EVENT])


def test_a_bearer_token_is_renewed_before_the_next_connection_needs_it(
    kafka: KafkaBroker, connection: KafkaConnection, opened: ExitStack
) -> None:
    asked: list[tuple[str, float]] = []

    def token() -> tuple[str, float]:
        asked.append(unsigned_token("worker", lifetime_s=3.0))
        return asked[-1]

    known = open_connection(f"kafka://{kafka.sasl_address}/{connection.address.topic}", sasl="oauthbearer", token=token)
    producer, reader = producer_of(known, opened), reader_of(known, opened)
    assert all(producer.append([EVENT]))
    first = {part: eventually_last(reader, part) for part in range(PARTITIONS)}
    at_first = len(asked)
    time.sleep(3.2)
    assert eventually_appended(producer, EVENT)[1] is not None
    assert {part: eventually_last(reader, part) for part in range(PARTITIONS)} != first
    assert len(asked) > at_first
    text, _ = unsigned_token("worker")
    fixed = open_connection(
        f"kafka://{kafka.sasl_address}/{connection.address.topic}", sasl="oauthbearer", password=text
    )
    assert eventually_last(reader_of(fixed, opened), 0) == reader.last_sequence(0), "a fixed token is sent as it is"


def eventually_last(reader: KafkaLog, partition: int) -> int | None:
    deadline = time.monotonic() + 20
    while True:
        try:
            return reader.last_sequence(partition)
        except BrokerUnavailable:
            assert time.monotonic() < deadline
