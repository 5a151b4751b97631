"""Several state versions folded side by side: the old one never pays for the new one."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from feature_jobs.backfill_state import backfill_state
from local.embedded import EmbeddedServers
from shared.adapters.redis_versions import StateVersions
from shared.errors import CorruptRecord, InfrastructureFault
from shared.features.fold import ItemCounters
from shared.features.shard import UserShard
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake import LakeManifest, ShopSettings, read_range
from shared.ingest.lake import write_manifest as write_lake_manifest
from shared.ingest.seal import seal_partition
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import Mark, Touched, Verdict
from tests.integration.old_version import OLD, OLD_ITEM, OLD_USER

SOURCE = "live-1"
Bodies = Callable[[int, int], list[bytes]]


@dataclass
class Told:
    """What the processor says of versions it gives up."""

    broken: dict[str, str] = field(default_factory=dict)

    def __call__(self, version: str, reason: str) -> None:
        self.broken[version] = reason


def clean_pass(world: Any, records: Any, *versions: AnyVersion) -> dict[str, Any]:
    """Every record once, in order, each version alone; what it leaves is taken away again."""
    found: dict[str, Any] = {}
    for version in versions:
        world.client.flushall()
        processor = world.processor(versions=[version])
        for record in records:
            processor.process([record])
        found |= world.shards()
    world.client.flushall()
    return found


def raising(version: AnyVersion, event_ids: set[str]) -> AnyVersion:
    def fold_user(shard: Any, event: Any, enqueued_at: int, sequence: int) -> bool:
        if event.event_id in event_ids:
            raise ZeroDivisionError(event.event_id)
        return version.fold_user(shard, event, enqueued_at, sequence)

    return replace(version, fold_user=fold_user)


def seal(world: Any) -> None:
    seal_partition(SOURCE, 0, store=world.store, blobs=world.blobs)


def marks(world: Any) -> dict[str, Mark | None]:
    names = [OLD.name, CURRENT_VERSION.name]
    held = world.store.read(SOURCE, 0, names, Touched())
    return {name: held.versions[name].mark for name in names}


def test_two_layouts_side_by_side_equal_each_alone(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(300, 31))
    expected = clean_pass(world, records, OLD, CURRENT_VERSION)
    processor = world.processor(versions=[OLD, CURRENT_VERSION])
    for start in range(0, 300, 70):
        processor.process(records[start : start + 90])
    assert world.shards() == expected
    shard = next(value for name, value in expected.items() if f":u:{OLD.name}:" in name)
    assert UserShard.decode(shard, OLD_USER).state.layout == OLD_USER
    counters = next(iter(expected[f"{{{SOURCE}.0}}:i:{OLD.name}"].values()))
    assert ItemCounters.decode(counters, OLD_ITEM).state.layout == OLD_ITEM


def test_a_version_without_a_mark_waits_and_stops_nobody(world: Any, bodies: Bodies, tmp_path: Path) -> None:
    records = world.publish(bodies(300, 32))
    expected = clean_pass(world, records, OLD, CURRENT_VERSION)
    world.processor(versions=[OLD]).process(records[:80])
    both = world.processor(versions=[OLD, CURRENT_VERSION])
    both.process(records[80:200])
    assert marks(world) == {OLD.name: Mark(199, records[199].enqueued_at), CURRENT_VERSION.name: None}
    seal(world)
    both.process(records[200:250])
    world.store.finish_load(SOURCE, 0, CURRENT_VERSION.name, Mark(-1, records[0].enqueued_at))
    both.process(records[250:])
    both.catch_up()
    assert world.shards() == expected


def test_one_that_lags_far_behind_does_not_hold_up_what_is_new(
    world: Any, bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.ingest.processor.LAGGING_STEPS", 1)
    monkeypatch.setattr("shared.ingest.processor.LAGGING_STEPS_CATCHING_UP", 2)
    whole_chunks = [body for body in bodies(430, 33) if b"user_erased" not in body]
    records = world.publish(whole_chunks[:400])
    expected = clean_pass(world, records, OLD, CURRENT_VERSION)
    world.processor(versions=[OLD]).process(records[:350])
    world.store.finish_load(SOURCE, 0, CURRENT_VERSION.name, Mark(-1, records[0].enqueued_at))
    both = world.processor(versions=[OLD, CURRENT_VERSION])
    both.process(records[350:])
    assert marks(world) == {
        OLD.name: Mark(399, records[399].enqueued_at),
        CURRENT_VERSION.name: Mark(99, records[99].enqueued_at),
    }
    for _ in range(2):
        both.catch_up()
    assert world.shards() == expected


def test_the_one_that_decides_catches_up_before_anything_new_is_decided(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(300, 34))
    expected = clean_pass(world, records, OLD, CURRENT_VERSION)
    world.processor(versions=[OLD, CURRENT_VERSION]).process(records[:100])
    world.processor(versions=[CURRENT_VERSION]).process(records[100:200])  # a worker that did not know of the old one
    poisoned = raising(CURRENT_VERSION, {f"event-34-{index}" for index in range(200, 300)})
    told = Told()
    processor = world.processor(versions=[OLD, poisoned], on_broken=told)
    processor.process(records[200:])
    assert told.broken.keys() == {CURRENT_VERSION.name}
    old_only = {name: value for name, value in expected.items() if CURRENT_VERSION.name not in name}
    assert {name: value for name, value in world.shards().items() if CURRENT_VERSION.name not in name} == old_only


@pytest.mark.parametrize("lagging", [False, True])
def test_a_new_version_that_raises_is_given_up_and_nothing_of_the_old_one_is_a_dead_letter(
    world: Any, bodies: Bodies, lagging: bool
) -> None:
    records = world.publish(bodies(400, 35))
    expected = clean_pass(world, records, OLD)
    world.processor(versions=[OLD]).process(records)
    verdicts = world.landing()
    world.client.flushall()

    broken = raising(CURRENT_VERSION, {"event-35-210", "event-35-211", "event-35-390"})
    told = Told()
    first = [OLD] if lagging else [OLD, broken]
    world.processor(versions=first).process(records[:200])
    if lagging:
        world.processor(versions=[OLD]).process(records[200:300])
        world.store.finish_load(SOURCE, 0, CURRENT_VERSION.name, Mark(-1, records[0].enqueued_at))
    processor = world.processor(versions=[OLD, broken], on_broken=told)
    processor.process(records[200:])
    processor.catch_up()
    assert list(told.broken) == [CURRENT_VERSION.name]
    assert "ZeroDivisionError: event-35-210" in told.broken[CURRENT_VERSION.name]
    assert world.landing() == verdicts
    found = world.shards()
    assert {name: value for name, value in found.items() if CURRENT_VERSION.name not in name} == expected
    held = marks(world)[CURRENT_VERSION.name]
    assert held is not None
    assert held.sequence < 212, "it stands where it was given up"


def test_a_new_version_whose_shards_cannot_be_read_is_given_up(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(200, 36))
    expected = clean_pass(world, records, OLD)
    world.processor(versions=[OLD, CURRENT_VERSION]).process(records[:100])
    name = next(name for name in world.shards() if f":u:{CURRENT_VERSION.name}:" in name)
    world.client.set(name, b"not a shard")
    told = Told()
    processor = world.processor(versions=[OLD, CURRENT_VERSION], on_broken=told)
    processor.process(records[100:])
    assert list(told.broken) == [CURRENT_VERSION.name]
    assert {name: value for name, value in world.shards().items() if CURRENT_VERSION.name not in name} == expected
    world.client.set(name.replace(CURRENT_VERSION.name, OLD.name), b"not a shard")
    with pytest.raises(CorruptRecord):
        processor.process(world.publish(bodies(200, 36)))


def test_an_event_that_the_deciding_version_cannot_fold_is_dead_for_all(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(120, 37))
    ids = {"event-37-50", "event-37-51", "event-37-52"}
    told = Told()
    processor = world.processor(versions=[raising(OLD, ids), raising(CURRENT_VERSION, ids)], on_broken=told)
    processor.process(records)
    assert told.broken == {}
    rows = world.store.oldest_landing_rows(SOURCE, 0, 1000)
    failed = [row for row in rows if (row.reason or "").startswith("fold failed")]
    assert 0 < len(failed) <= 3
    assert marks(world)[CURRENT_VERSION.name] == marks(world)[OLD.name] == Mark(119, records[119].enqueued_at)


def test_what_cannot_be_told_durably_stops_the_partition(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(50, 38))

    def away(_version: str, _reason: str) -> None:
        raise InfrastructureFault("Redis does not answer")

    versions = [OLD, raising(CURRENT_VERSION, {f"event-38-{number}" for number in range(50)})]
    with pytest.raises(InfrastructureFault):
        world.processor(versions=versions, on_broken=away).process(records)
    world.processor(versions=versions, on_broken=Told()).process(records)
    assert world.shards()[f"{{{SOURCE}.0}}:mark:{OLD.name}"].startswith(b"49:")


def test_a_broken_version_recovers_after_it_was_cleared_and_backfilled(
    world: Any, bodies: Bodies, servers: EmbeddedServers
) -> None:
    records = world.publish(bodies(300, 39))
    expected = clean_pass(world, records, OLD, CURRENT_VERSION)
    states = StateVersions(world.client)
    processor = world.processor(
        versions=[OLD, raising(CURRENT_VERSION, {"event-39-100", "event-39-101"})], on_broken=states.mark_broken
    )
    processor.process(records[:200])
    assert list(states.broken()) == [CURRENT_VERSION.name]
    assert states.stored().keys() == {OLD.name, CURRENT_VERSION.name}
    seal(world)
    assert states.clear(CURRENT_VERSION.name) > 3
    assert states.broken() == {}
    assert states.stored().keys() == {OLD.name}
    fixed = world.processor(versions=[OLD, CURRENT_VERSION])
    fixed.process(records[200:250])
    assert marks(world)[CURRENT_VERSION.name] is None
    world.store.finish_load(SOURCE, 0, CURRENT_VERSION.name, Mark(-1, records[0].enqueued_at))
    fixed.catch_up()
    fixed.process(records[250:])
    found = world.shards()
    assert found == expected
    rows = read_range(world.blobs, SOURCE, 0, 0, 400) + world.store.oldest_landing_rows(SOURCE, 0, 400)
    assert sum(row.verdict is Verdict.DEAD and "fold failed" in (row.reason or "") for row in rows) == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_workers_of_both_deployments_backups_and_sealing_at_random_equal_a_clean_pass(
    world: Any, bodies: Bodies, seed: int
) -> None:
    """A rollout as it comes: nobody agrees on the versions, and the state goes back to older copies meanwhile."""
    draw = random.Random(seed)
    records = world.publish(bodies(260, 50 + seed))
    expected = clean_pass(world, records, OLD, CURRENT_VERSION)
    world.processor(versions=[OLD, CURRENT_VERSION]).process(records[:10])
    sets = [[OLD], [OLD, CURRENT_VERSION], [CURRENT_VERSION], [CURRENT_VERSION, OLD]]
    workers = [world.processor(versions=versions) for versions in sets]
    backup, position = world.copy_state(), 10
    while position < len(records):
        first, last = max(0, position - draw.randrange(60)), position + draw.randrange(1, 60)
        draw.choice(workers).process(records[first:last])
        position = max(position, min(last, len(records)))
        match draw.randrange(8):
            case 0:
                seal(world)
            case 1:
                backup = world.copy_state()
            case 2:
                world.restore_state(backup)
            case 3:
                draw.choice(workers).catch_up()
    workers[1].catch_up()
    assert world.shards() == expected


def test_old_and_new_workers_at_once_on_one_partition_count_everything_once(world: Any, bodies: Bodies) -> None:
    records = world.publish(bodies(200, 61))
    expected = clean_pass(world, records, OLD, CURRENT_VERSION)
    world.processor(versions=[OLD, CURRENT_VERSION]).process(records[:5])
    faults: list[BaseException] = []

    def consume(versions: list[AnyVersion], seed: int) -> None:
        processor, draw, position = world.processor(versions=versions), random.Random(seed), 0
        try:
            while position < len(records):
                size = draw.randrange(1, 60)
                processor.process(records[position : position + size])
                position += size
        except BaseException as error:  # noqa: BLE001 - a thread's fault must reach the test
            faults.append(error)

    threads = [
        threading.Thread(target=consume, args=(versions, seed))
        for seed, versions in enumerate(([OLD], [OLD, CURRENT_VERSION]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    world.processor(versions=[OLD, CURRENT_VERSION]).catch_up()
    assert world.shards() == expected


def test_a_version_that_was_loaded_ahead_of_the_log_waits_for_it_and_what_was_decided_stands(
    world: Any, bodies: Bodies, servers: EmbeddedServers
) -> None:
    """The state came back from an older copy, and the lake, which the backfill reads, is further on."""
    records = world.publish(bodies(300, 62))
    world.processor(versions=[raising(OLD, {"event-62-120", "event-62-121"})]).process(records)
    verdicts = world.landing()
    assert any(sequence >= 120 and verdict is Verdict.DEAD for sequence, verdict in verdicts)
    shards = world.shards()
    world.client.flushall()
    world.processor(versions=[OLD]).process(records[:100])
    seal(world)
    backup = world.copy_state()
    world.processor(versions=[raising(OLD, {"event-62-120", "event-62-121"})]).process(records[100:250])
    seal(world)
    world.restore_state(backup)
    write_lake_manifest(world.blobs, LakeManifest(version=1, shop=ShopSettings()))
    backfill_state(world.blobs.root, servers.state_url, "test secret", CURRENT_VERSION, engine="local")
    assert marks(world) == {
        OLD.name: Mark(99, records[99].enqueued_at),
        CURRENT_VERSION.name: Mark(249, records[249].enqueued_at),
    }
    both = world.processor(versions=[OLD, CURRENT_VERSION])
    both.process(records[100:180])
    both.process(records[180:])
    assert {name: value for name, value in world.shards().items() if CURRENT_VERSION.name not in name} == shards
    assert len(set(marks(world).values())) == 1
    seal(world)
    rows = read_range(world.blobs, SOURCE, 0, 0, 1000)
    assert [(row.sequence, row.verdict) for row in rows] == verdicts
