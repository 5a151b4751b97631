"""State equals one clean pass over the log, whatever happens between the broker and the commit."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import BadDeployment, InfrastructureFault, MarkMoved, StateUnavailable, StreamRecreated
from shared.features.fold import ItemCounters
from shared.ingest.lake import read_range, write_sealed
from shared.ingest.seal import seal_partition, trim_broker
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LandingRow, LogRecord, Mark, PartitionCommit, PartitionState, Touched, Verdict

SOURCE = "live-1"
Bodies = Callable[[int, int], list[bytes]]


def clean_pass(world: Any, records: Sequence[LogRecord]) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """The oracle: every record once, in order, alone; what it leaves is taken away again."""
    world.client.flushall()
    processor = world.processor()
    for record in records:
        processor.process([record])
    result = world.shards(), world.landing()
    world.client.flushall()
    return result


def seal(world: Any) -> int:
    return seal_partition(SOURCE, 0, store=world.store, blobs=world.blobs)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_duplicated_overlapping_and_shuffled_batches_equal_a_clean_pass(world: Any, bodies: Bodies, seed: int) -> None:
    records = world.publish(bodies(400, seed))
    shards, landing = clean_pass(world, records)
    verdicts = {verdict for _, verdict in landing}
    assert verdicts == {Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.DEAD}, "the data must exercise every verdict"

    draw = random.Random(seed)
    processor = world.processor()
    position = 0
    while position < len(records):
        first = max(0, position - draw.randrange(60))
        last = min(len(records), position + draw.randrange(1, 180))
        batch = records[first:last] + draw.choices(records[first:last], k=10)
        draw.shuffle(batch)
        if draw.random() < 0.4:
            processor = world.processor()  # a new worker, which remembers nothing
        processor.process(batch)
        position = last
    assert world.shards() == shards
    assert world.landing() == landing
    assert [sequence for sequence, _ in landing] == list(range(len(records)))


def test_two_processors_on_one_partition_at_once_count_everything_once(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(600, 4))
    shards, landing = clean_pass(world, records)
    faults: list[BaseException] = []

    def consume(seed: int) -> None:
        processor, draw, position = world.processor(), random.Random(seed), 0
        try:
            while position < len(records):
                size = draw.randrange(1, 120)
                processor.process(records[position : position + size])
                position += size
        except BaseException as error:  # noqa: BLE001 - a thread's fault must reach the test
            faults.append(error)

    threads = [threading.Thread(target=consume, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert world.shards() == shards
    assert world.landing() == landing


class Dying:
    """The store of a worker that dies at a chosen step of a chosen call."""

    def __init__(self, store: Any, step: str, call: int) -> None:
        self._store = store
        self._step = step
        self._calls = call

    def _die(self, step: str) -> None:
        if step == self._step:
            self._calls -= 1
            if self._calls == 0:
                raise KeyboardInterrupt(step)

    def read(self, source: str, partition: int, versions: Sequence[str], touched: Touched) -> PartitionState:
        self._die("before read")
        state: PartitionState = self._store.read(source, partition, versions, touched)
        self._die("after read")
        return state

    def commit(self, commit: PartitionCommit) -> None:
        self._die("before commit")
        self._store.commit(commit)
        self._die("after commit")

    def landing_rows(self, source: str, partition: int, first: int, last: int) -> list[LandingRow]:
        rows: list[LandingRow] = self._store.landing_rows(source, partition, first, last)
        return rows

    def oldest_landing_rows(self, source: str, partition: int, limit: int) -> list[LandingRow]:
        rows: list[LandingRow] = self._store.oldest_landing_rows(source, partition, limit)
        self._die("after landing read")
        return rows

    def trim_landing(self, source: str, partition: int, through: LandingRow) -> None:
        self._die("before trim")
        self._store.trim_landing(source, partition, through)
        self._die("after trim")


@pytest.mark.parametrize("step", ["before read", "after read", "before commit", "after commit"])
@pytest.mark.parametrize("call", [1, 3])
def test_a_worker_that_dies_at_any_step_leaves_what_the_next_one_completes(
    world: Any, bodies: Bodies, step: str, call: int
) -> None:
    records = world.publish(bodies(350, 5))
    shards, landing = clean_pass(world, records)
    with pytest.raises(KeyboardInterrupt):
        world.processor(Dying(world.store, step, call)).process(records)
    world.processor().process(records)
    assert world.shards() == shards
    assert world.landing() == landing


@pytest.mark.parametrize("step", ["after landing read", "before trim", "after trim"])
def test_sealing_that_dies_leaves_every_row_in_lake_or_landing(world: Any, bodies: Bodies, step: str) -> None:
    records = world.publish(bodies(200, 6))
    _, landing = clean_pass(world, records)
    processor = world.processor()
    processor.process(records[:120])
    with pytest.raises(KeyboardInterrupt):
        seal_partition(SOURCE, 0, store=Dying(world.store, step, 1), blobs=world.blobs)
    processor.process(records[120:])
    seal(world)
    rows = read_range(world.blobs, SOURCE, 0, 0, len(records))
    assert [(row.sequence, row.verdict) for row in rows] == landing
    assert world.landing() == []


def test_a_restored_copy_is_refilled_from_the_lake_and_then_the_broker(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(500, 7))
    shards, landing = clean_pass(world, records)
    processor = world.processor()
    processor.process(records[:100])
    seal(world)
    backup = world.copy_state()
    processor.process(records[100:250])
    seal(world)
    trim_broker(SOURCE, [0], broker=world.broker, blobs=world.blobs)
    processor.process(records[250:400])
    world.restore_state(backup)
    assert world.broker.first == 250, "the broker no longer holds what only the lake can give back"

    processor.process(records[400:])  # the checkpoint stayed ahead of the copy

    assert world.shards() == shards
    seal(world)
    rows = read_range(world.blobs, SOURCE, 0, 0, len(records))
    assert [(row.sequence, row.verdict) for row in rows] == landing


def test_a_quiet_partition_is_refilled_by_comparing_its_mark_with_the_broker(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(300, 8))
    shards, _ = clean_pass(world, records)
    processor = world.processor()
    processor.process(records[:100])
    backup = world.copy_state()
    processor.process(records[100:])
    world.restore_state(backup)
    processor.catch_up()
    assert world.shards() == shards


def test_a_redelivery_after_a_restore_is_not_taken_for_done(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(300, 9))
    shards, _ = clean_pass(world, records)
    processor = world.processor()
    processor.process(records[:100])
    backup = world.copy_state()
    processor.process(records[100:])
    world.restore_state(backup)
    processor.process(records[280:])  # all of it is below the mark that the processor remembers
    assert world.shards() == shards


def test_the_verdicts_of_the_lake_stand(world: Any, bodies: Bodies) -> None:
    """An event that an older deployment could not fold stays dead when a newer one, which could, refills."""
    records = world.publish(bodies(60, 10))
    broken = world.poisoned({f"event-10-{index}" for index in (20, 21, 22, 23)})
    world.processor(versions=[broken]).process(records)
    shards, landing = world.shards(), world.landing()
    dead = [sequence for sequence, verdict in landing if verdict is Verdict.DEAD]
    seal(world)
    world.client.flushall()
    world.store.finish_load(SOURCE, 0, CURRENT_VERSION.name, before(records[0]))
    world.processor().catch_up()
    assert world.shards() == shards
    assert [sequence for sequence, verdict in world.landing() if verdict is Verdict.DEAD] == dead


def test_an_accepted_row_of_the_lake_stays_accepted_whatever_the_ring_says(world: Any, bodies: Bodies) -> None:
    body = next(one for one in bodies(50, 20) if b'"view"' in one)
    records = world.publish([body, body])
    rows = [LandingRow(SOURCE, 0, one.sequence, one.enqueued_at, Verdict.ACCEPTED, one.body) for one in records]
    write_sealed(world.blobs, rows)
    world.store.finish_load(SOURCE, 0, CURRENT_VERSION.name, before(records[0]))
    world.processor().catch_up()
    assert world.store.oldest_landing_rows(SOURCE, 0, 10) == rows
    (counters,) = world.client.hvals(world.keys().items(CURRENT_VERSION.name))
    assert ItemCounters.decode(counters).state.counts.sum() == 2


def test_a_row_that_was_folded_once_and_does_not_decode_now_is_the_codes_fault(world: Any) -> None:
    (record,) = world.publish([b"not what it was"])
    write_sealed(world.blobs, [LandingRow(SOURCE, 0, 0, record.enqueued_at, Verdict.ACCEPTED, record.body)])
    world.store.finish_load(SOURCE, 0, CURRENT_VERSION.name, before(record))
    with pytest.raises(BadDeployment, match="sequence 0"):
        world.processor().catch_up()


def before(first: LogRecord) -> Mark:
    """What the hand-over from a backfill of nothing leaves: a mark right before the first record."""
    return Mark(first.sequence - 1, first.enqueued_at)


def test_what_neither_lake_nor_broker_holds_is_recorded_with_an_alarm(
    world: Any, bodies: Bodies, caplog: pytest.LogCaptureFixture
) -> None:
    records = world.publish(bodies(100, 11))
    processor = world.processor()
    processor.process(records[:10])
    world.broker.trim_below(0, 40)
    processor.process(records[60:])
    row = next(row for row in world.store.oldest_landing_rows(SOURCE, 0, 1000) if row.verdict is Verdict.SKIPPED)
    assert (row.sequence, row.last_sequence) == (10, 39)
    assert [sequence for sequence, _ in world.landing()] == list(range(100))
    assert any(record.levelname == "ERROR" and "10 to 39" in record.getMessage() for record in caplog.records)


def test_where_the_broker_shows_that_nothing_lies_between_it_goes_on_without_alarm(
    world: Any, bodies: Bodies, caplog: pytest.LogCaptureFixture
) -> None:
    records = [one for one in world.publish(bodies(60, 12)) if not 20 <= one.sequence < 25]
    world.broker.records = records
    world.processor().process(records)
    landing = world.landing()
    assert [sequence for sequence, _ in landing] == list(range(60))
    assert [sequence for sequence, verdict in landing if verdict is Verdict.SKIPPED] == list(range(20, 25))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_state_without_marks_is_a_fresh_start_only_while_the_lake_is_empty(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(50, 13))
    processor = world.processor()
    processor.process(records[:30])
    seal(world)
    world.client.flushall()
    with pytest.raises(InfrastructureFault, match="rebuild_state"):
        processor.process(records[30:])
    with pytest.raises(InfrastructureFault, match="rebuild_state"):
        processor.catch_up()
    assert world.shards() == {}


def test_where_no_version_has_a_mark_though_the_log_has_one_nothing_is_folded(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(50, 14))
    world.processor().process(records[:30])
    shards = world.shards()
    with pytest.raises(InfrastructureFault, match="no mark of other"):
        world.processor(versions=[replace(CURRENT_VERSION, name="other")]).process(records[30:])
    assert world.shards() == shards


def test_a_broker_log_that_ends_below_the_mark_was_made_anew(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(50, 22))
    processor = world.processor()
    processor.process(records)
    processor.catch_up()
    shards = world.shards()
    for kept in (40, 0):
        world.broker.records = records[:kept]
        with pytest.raises(StreamRecreated, match="ends at sequence"):
            processor.catch_up()
    world.broker.records = records
    processor.catch_up()
    assert world.shards() == shards


def test_a_version_that_lags_catches_up_on_the_recorded_verdicts_and_joins(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(400, 15))
    shards, landing = clean_pass(world, records)
    processor = world.processor()
    processor.process(records[:150])
    seal(world)  # a part of what the laggard needs lies in the lake, a part in landing
    processor.process(records[150:300])
    world.store.finish_load(SOURCE, 0, "other", before(records[0]))
    both = [CURRENT_VERSION, replace(CURRENT_VERSION, name="other")]
    world.processor(versions=both).process(records[300:])
    found = world.shards()
    assert {name: value for name, value in found.items() if "other" not in name} == shards
    renamed = {
        name.replace(":other", f":{CURRENT_VERSION.name}"): value for name, value in found.items() if "other" in name
    }
    assert renamed == {name: value for name, value in shards.items() if CURRENT_VERSION.name in name}
    seal(world)
    assert [(row.sequence, row.verdict) for row in read_range(world.blobs, SOURCE, 0, 0, 1000)] == landing


def test_a_stream_made_anew_is_refused(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(50, 16))
    processor = world.processor()
    processor.process(records)
    shards = world.shards()
    for anew in (
        [replace(records[-1], enqueued_at=records[-1].enqueued_at - 5)],  # the record at the mark
        [replace(records[3], enqueued_at=records[-1].enqueued_at + 60_000)],  # one below it, enqueued later
    ):
        with pytest.raises(StreamRecreated):
            processor.process(anew)
    seal(world)
    with pytest.raises(StreamRecreated):
        world.processor().process([replace(records[3], enqueued_at=records[-1].enqueued_at + 60_000)])
    processor.process(records)
    assert world.shards() == shards


def test_a_record_without_coordinates_is_a_fault_and_never_partition_0(world: Any) -> None:
    record = LogRecord(SOURCE, 0, 0, 1, b"{}")
    for name in ("sequence", "enqueued_at", "partition"):
        broken = replace(record, **{name: None})  # type: ignore[arg-type] # what a trigger without metadata gives
        with pytest.raises(InfrastructureFault):
            world.processor().process([broken])
    with pytest.raises(InfrastructureFault):
        world.processor().process([replace(record, partition=1)])
    assert world.shards() == {}


def test_a_store_that_does_not_answer_raises_and_loses_nothing(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(250, 17))
    shards, _ = clean_pass(world, records)

    class LostAnswer(Dying):
        """The commit arrives; its answer does not."""

        def commit(self, commit: PartitionCommit) -> None:
            super().commit(commit)
            self._calls -= 1
            if self._calls == 0:
                raise StateUnavailable("no answer")

    processor = world.processor(LostAnswer(world.store, "", 2))
    with pytest.raises(StateUnavailable):
        processor.process(records)
    processor.process(records)
    assert world.shards() == shards


def test_endless_refusals_end_in_a_fault(world: Any, bodies: Bodies) -> None:
    class Refusing(Dying):
        def commit(self, commit: PartitionCommit) -> None:
            raise MarkMoved(f"always, at {commit.mark_after}")

    with pytest.raises(InfrastructureFault, match="refused"):
        world.processor(Refusing(world.store, "", 0)).process(world.publish(bodies(5, 18)))


def test_the_broker_is_trimmed_only_below_what_is_sealed(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(90, 19))
    processor = world.processor()
    trim_broker(SOURCE, [0], broker=world.broker, blobs=world.blobs)
    assert world.broker.first == 0
    processor.process(records[:70])
    seal(world)
    processor.process(records[70:])
    trim_broker(SOURCE, [0], broker=world.broker, blobs=world.blobs)
    assert world.broker.first == 70
