"""The local pump behaves as Azure's host does: at least once, and its checkpoint moves after a call that gave up."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from local.event_pump import EventPump, RetryPolicy
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_log import RedisCheckpoints, RedisEventLog
from shared.adapters.redis_shards import RedisShardReader
from shared.adapters.redis_state import RedisStateStore
from shared.errors import BrokerUnavailable, StateUnavailable
from shared.events import Event, EventSource, EventType, ItemId, UserId, encode_event, id_hash
from shared.features.fold import ItemCounters
from shared.features.shard import UserShard
from shared.ingest.processor import EventProcessor
from shared.ingest.seal import seal_landing, trim_broker
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord, Verdict

SOURCE = "live-1"
QUICK = RetryPolicy(retries=2, first_delay_s=0.0)


@pytest.fixture
def log(log_client: Redis) -> RedisEventLog:
    return RedisEventLog(log_client, SOURCE, 2)


@pytest.fixture
def checkpoints(log_client: Redis) -> RedisCheckpoints:
    return RedisCheckpoints(log_client, SOURCE)


class Handler:
    """Remembers its calls; raises for the first `failures` of them."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[list[tuple[int, int]]] = []
        self.failures = failures

    def __call__(self, records: Sequence[LogRecord]) -> None:
        self.calls.append([(one.partition, one.sequence) for one in records])
        if len(self.calls) <= self.failures:
            raise StateUnavailable("not now")


def append(log: RedisEventLog, count: int) -> list[tuple[int, int]]:
    answers = log.append([(f"user-{n}", b"%d" % n) for n in range(count)])
    return [(one.partition, one.sequence) for one in answers if one and one.sequence is not None]


def test_batches_hold_one_partition_in_order_and_the_checkpoint_follows(
    log: RedisEventLog, checkpoints: RedisCheckpoints
) -> None:
    published = append(log, 50)
    handler = Handler()
    pump = EventPump(log, checkpoints, range(2), handler, batch_size=10)
    while pump.pump_once():
        pass
    assert all(len(call) <= 10 and len({part for part, _ in call}) == 1 for call in handler.calls)
    seen = [one for call in handler.calls for one in call]
    assert sorted(seen) == sorted(published)
    assert [one for one in seen if one[0] == 0] == sorted(one for one in seen if one[0] == 0)
    for part in (0, 1):
        assert checkpoints.get(part) == max(sequence for where, sequence in published if where == part)
    again = Handler()
    assert EventPump(log, checkpoints, range(2), again).pump_once() == 0
    assert again.calls == []


def test_a_call_that_raises_is_retried_with_the_same_batch(log: RedisEventLog, checkpoints: RedisCheckpoints) -> None:
    append(log, 5)
    handler = Handler(failures=2)
    EventPump(log, checkpoints, [0], handler, retry=QUICK).pump_once()
    assert len(handler.calls) == 3
    assert handler.calls[0] == handler.calls[1] == handler.calls[2]


def test_the_checkpoint_moves_after_a_call_that_raised_to_the_end_of_its_retries(
    log: RedisEventLog, checkpoints: RedisCheckpoints
) -> None:
    published = [sequence for part, sequence in append(log, 20) if part == 0]
    handler = Handler(failures=3)
    pump = EventPump(log, checkpoints, [0], handler, batch_size=4, retry=QUICK)
    pump.pump_once()
    assert len(handler.calls) == 3
    assert checkpoints.get(0) == 3, "Azure's host goes on; the gap rule brings the batch back"
    pump.pump_once()
    assert handler.calls[3] == [(0, sequence) for sequence in published[4:8]]


def test_a_stop_during_retries_leaves_the_checkpoint(log: RedisEventLog, checkpoints: RedisCheckpoints) -> None:
    append(log, 20)
    offered = threading.Event()

    def handler(records: Sequence[LogRecord]) -> None:
        offered.set()
        raise StateUnavailable("never")

    pump = EventPump(log, checkpoints, [0], handler, retry=RetryPolicy(retries=None, first_delay_s=0.01))
    pump.start()
    assert offered.wait(20)
    pump.stop()
    assert checkpoints.get(0) == -1
    handler_after = Handler()
    EventPump(log, checkpoints, [0], handler_after).pump_once()
    assert handler_after.calls[0][0] == (0, 0), "the next worker is offered it again"


def test_a_batch_that_never_succeeds_is_offered_without_limit_and_holds_its_partition(
    log: RedisEventLog, checkpoints: RedisCheckpoints
) -> None:
    append(log, 20)
    handler = Handler(failures=12)
    EventPump(
        log, checkpoints, [0], handler, batch_size=2, retry=RetryPolicy(first_delay_s=0.0, longest_delay_s=0.0)
    ).pump_once()
    assert handler.calls == [[(0, 0), (0, 1)]] * 13


def test_the_thread_hands_over_what_comes_and_outlives_a_broker_that_is_away(
    log: RedisEventLog, checkpoints: RedisCheckpoints
) -> None:
    away = threading.Event()
    seen: list[int] = []
    come = threading.Condition()

    class Flaky:
        def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
            if not away.is_set():
                away.set()
                raise BrokerUnavailable("away")
            return log.read(partition, after_sequence, limit)

        def last_sequence(self, partition: int) -> int | None:
            return log.last_sequence(partition)

    def handler(records: Sequence[LogRecord]) -> None:
        with come:
            seen.extend(one.sequence for one in records if one.partition == 0)
            come.notify()

    pump = EventPump(Flaky(), checkpoints, range(2), handler, wait=log.wait, retry=QUICK)
    pump.start()
    published = [sequence for part, sequence in append(log, 10) if part == 0]
    with come:
        assert come.wait_for(lambda: len(seen) >= len(published), 20)
    published += [sequence for part, sequence in append(log, 10) if part == 0]
    with come:
        assert come.wait_for(lambda: len(seen) >= len(published), 20)
    pump.stop()
    assert seen == published


def test_checkpoints_may_be_written_now_and_then_and_are_at_the_end(
    log: RedisEventLog, checkpoints: RedisCheckpoints
) -> None:
    published = [sequence for part, sequence in append(log, 20) if part == 0]
    now_s = [0.0]
    pump = EventPump(log, checkpoints, [0], Handler(), batch_size=4, checkpoint_ms=250, seconds=lambda: now_s[0])
    pump.pump_once()
    assert checkpoints.get(0) == 3
    pump.pump_once()
    assert checkpoints.get(0) == 3, "not yet"
    now_s[0] = 0.3
    pump.pump_once()
    assert checkpoints.get(0) == min(11, published[-1])
    handler = Handler()
    pump = EventPump(log, checkpoints, [0], handler, batch_size=2, checkpoint_ms=10**9, seconds=lambda: now_s[0])
    pump.start()
    append(log, 20)
    deadline = time.monotonic() + 20
    while (last := log.last_sequence(0)) != (handler.calls[-1][-1][1] if handler.calls else -1):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    pump.stop()
    assert checkpoints.get(0) == last


def test_the_pause_grows_to_its_bound() -> None:
    policy = RetryPolicy(first_delay_s=0.1, longest_delay_s=5.0)
    assert [policy.delay_s(attempt) for attempt in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert policy.delay_s(10_000) == 5.0


def test_what_a_call_gave_up_comes_back_by_the_gap_rule(
    log: RedisEventLog, checkpoints: RedisCheckpoints, state_client: Redis, tmp_path: Path
) -> None:
    """The whole path: broker log, pump, processor, state; the state is away while two batches are given up."""
    store = RedisStateStore(state_client, "test secret")
    processor = EventProcessor(
        SOURCE, store=store, versions=[CURRENT_VERSION], blobs=FolderBlobStore(tmp_path), broker=log
    )
    at = datetime.now(UTC)
    events = [
        Event(
            event_id=f"e{n}",
            event_type=EventType.VIEW,
            occurred_at=at,
            user_id=UserId(f"u{n % 9}"),
            item_id=ItemId("i"),
        )
        for n in range(120)
    ]
    log.append([(event.partition_key, encode_event(event)) for event in events])
    away = 6

    def handler(records: Sequence[LogRecord]) -> None:
        nonlocal away
        away -= 1
        if away >= 0:
            raise StateUnavailable("away")
        processor.process(records)

    pump = EventPump(log, checkpoints, range(2), handler, batch_size=20, retry=QUICK)
    while pump.pump_once():
        pass
    assert [len(store.oldest_landing_rows(SOURCE, part, 1000)) for part in (0, 1)] == [
        (log.last_sequence(0) or 0) + 1,
        0,
    ]
    processor.catch_up(range(2))  # partition 1 had one batch and fell quiet: only the comparison of marks finds it
    for part in (0, 1):
        last = log.last_sequence(part)
        assert last is not None
        assert checkpoints.get(part) == last
        rows = store.oldest_landing_rows(SOURCE, part, 1000)
        assert [row.sequence for row in rows] == list(range(last + 1))
        assert {row.verdict for row in rows} == {Verdict.ACCEPTED}
    reader = RedisShardReader(state_client, "test secret", CURRENT_VERSION.name)
    counted = [reader.snapshot_items(SOURCE, part).counters[id_hash("i")] for part in (0, 1)]
    assert sum(ItemCounters.decode(data).state.counts.sum() for data in counted) == 120
    (shard,) = reader.read_user_shards("u3", [EventSource(SOURCE, (2,))]).shards
    assert shard.shard is not None
    assert UserShard.decode(shard.shard).state.counts.sum() == sum(event.user_id == "u3" for event in events)
    seal_landing(SOURCE, range(2), store=store, blobs=FolderBlobStore(tmp_path))
    trim_broker(SOURCE, range(2), broker=log, blobs=FolderBlobStore(tmp_path))
    assert [log.read(part, -1, 10) for part in (0, 1)] == [[], []]
    processor.catch_up(range(2))
