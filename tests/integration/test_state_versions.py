"""Several state versions folded side by side: the old one never pays for the new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from local.embedded import EmbeddedServers
from local.state_versions import main
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.redis_versions import StateVersions
from shared.errors import CorruptRecord, InfrastructureFault
from shared.events import EventSource, EventType
from shared.features.aggregations import Count, Decayed, LastK, Layout
from shared.features.definitions import version_name
from shared.features.fold import ItemCounters
from shared.features.shard import UserShard
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake import read_range
from shared.ingest.seal import seal_partition
from shared.ingest.state_versions import (
    CURRENT_LAYOUTS,
    CURRENT_VERSION,
    described_version,
    needed_versions,
    version_of,
)
from shared.ports import Allocation, Mark, Touched, Verdict
from shared.releases.manifest import ReleaseManifest, write_manifest
from tests.integration.api_shop import ApiShop, behaviour, open_shop

SOURCE = "live-1"
OLD_USER = Layout(
    [Count((EventType.VIEW,)), Decayed((EventType.VIEW, EventType.CART), 3_600_000), LastK((EventType.VIEW,), 5)]
)
OLD_ITEM = Layout([Count((EventType.PURCHASE,)), Decayed((EventType.VIEW,), 86_400_000)])
OLD = version_of(version_name(OLD_USER, OLD_ITEM), OLD_USER, OLD_ITEM)
OLD_LAYOUTS = {"user": OLD_USER.describe(), "item": OLD_ITEM.describe()}
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
    records = world.publish(bodies(400, 32))
    expected = clean_pass(world, records, OLD, CURRENT_VERSION)
    world.processor(versions=[OLD]).process(records[:150])
    both = world.processor(versions=[OLD, CURRENT_VERSION])
    both.process(records[150:300])
    assert marks(world) == {OLD.name: Mark(299, records[299].enqueued_at), CURRENT_VERSION.name: None}
    seal(world)
    both.process(records[300:350])
    world.store.finish_load(SOURCE, 0, CURRENT_VERSION.name, Mark(-1, records[0].enqueued_at))
    both.process(records[350:])
    both.catch_up()
    assert world.shards() == expected


def test_one_that_lags_far_behind_does_not_hold_up_what_is_new(
    world: Any, bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.ingest.processor.LAGGING_STEPS", 1)
    monkeypatch.setattr("shared.ingest.processor.LAGGING_STEPS_CATCHING_UP", 2)
    records = world.publish(bodies(700, 33))
    expected = clean_pass(world, records, OLD, CURRENT_VERSION)
    world.processor(versions=[OLD]).process(records[:600])
    world.store.finish_load(SOURCE, 0, CURRENT_VERSION.name, Mark(-1, records[0].enqueued_at))
    both = world.processor(versions=[OLD, CURRENT_VERSION])
    both.process(records[600:])
    assert marks(world) == {
        OLD.name: Mark(699, records[699].enqueued_at),
        CURRENT_VERSION.name: Mark(99, records[99].enqueued_at),
    }
    for _ in range(3):
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


def manifest(release_id: str, created_at: int, **changes: Any) -> ReleaseManifest:
    values: dict[str, Any] = {
        "release_id": release_id, "created_at": created_at, "as_of": 0, "schema_digest": "", "feature_names": (),
        "state_version": CURRENT_VERSION.name, "time_zone": "UTC", "currency": "GBP", "bought_window_days": 30,
        "shop_name": "", "sources": (), "items_count": 0, "users_count": 0, "als": {}, "evaluation": {},
        "drift_baseline": {}, "mlflow_run_id": None, "files": {}, "state_layouts": CURRENT_LAYOUTS,
    }  # fmt: skip
    return ReleaseManifest(**(values | changes))


@dataclass
class Published:
    weights: tuple[tuple[str, float], ...]
    history: list[str]

    def allocation(self) -> Allocation | None:
        return Allocation(1, "", self.weights) if self.weights else None

    def published(self) -> list[str]:
        return self.history


def test_the_versions_needed_are_those_of_traffic_and_rollback_the_oldest_first() -> None:
    old = {"state_version": OLD.name, "state_layouts": OLD_LAYOUTS}
    held = {
        "r1": manifest("r1", 1, **old),
        "r2": manifest("r2", 2),
        "r3": manifest("r3", 3),
        "bare": manifest("bare", 0, state_version=OLD.name, state_layouts=None),
        "other format": manifest("other format", 0, state_version="00000000", state_layouts=OLD_LAYOUTS),
    }
    both, current = [OLD.name, CURRENT_VERSION.name], [CURRENT_VERSION.name]
    for weights, history, folded, allocated in (
        ((), [], current, set()),
        ((("r1", 1.0),), ["r1"], both, {OLD.name}),
        ((("r2", 0.05), ("r1", 0.95)), ["r1"], both, set(both)),
        ((("r2", 1.0), ("r1", 0.0)), ["r2", "r1"], both, set(current)),
        ((("r3", 1.0),), ["r3", "r2", "r1"], current, set(current)),
    ):
        needed = needed_versions(Published(weights, history), held.__getitem__)
        assert [version.name for version in needed.fold] == folded
        assert needed.allocated == allocated
        assert needed.beyond == {}
    for name in ("bare", "other format"):
        needed = needed_versions(Published(((name, 1.0),), [name]), held.__getitem__)
        assert [version.name for version in needed.fold] == current
        assert "another format" in needed.beyond[name]
    with pytest.raises(CorruptRecord):
        described_version("1" * 8, {"user": [{"kind": "median"}], "item": []})


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


def state_check(shop: ApiShop) -> tuple[bool, str]:
    (check,) = [one for one in shop.services.readiness.checks() if one.name == "state_versions"]
    return check.ok, check.detail


def test_a_worker_follows_what_is_published_and_says_who_waits_or_is_broken(shop: ApiShop) -> None:
    source = EventSource(shop.settings.event_source, (shop.settings.partition_count,))
    states = StateVersions(shop.releases._client)
    keeper = next(one for one in shop.services.background if one._name == "version-keeper")
    assert state_check(shop) == (True, f"folded: {CURRENT_VERSION.name}")
    shop.publish("r-old", state_version=OLD.name, state_layouts=OLD_LAYOUTS, created_at=-1)
    keeper.take_step()
    shop.click("ann", 3)  # goes on though the other version has no mark
    ok, detail = state_check(shop)
    assert not ok, "a release with traffic reads a state that nobody folds"
    assert f"{OLD.name} waits for its backfill" in detail

    shop.publish("r-test-2")
    shop.releases.set_published(["r-test-2", "r-old"])
    keeper.take_step()
    ok, detail = state_check(shop)
    assert ok, "only a rollback would need it"
    assert f"{OLD.name} waits for its backfill" in detail

    for partition, held in enumerate(states.marks(source, [])):
        assert held.log is not None
        store = RedisStateStore(shop.releases._client, shop.settings.user_key_secret)
        store.finish_load(source.name, partition, OLD.name, Mark(-1, held.log.enqueued_at))
    shop.services.ingest.catch_up(source.partitions())
    assert state_check(shop) == (True, f"folded: {OLD.name}, {CURRENT_VERSION.name}")
    shop.click("ann", 4)
    for held in states.marks(source, [OLD.name, CURRENT_VERSION.name]):
        assert held.versions == dict.fromkeys([OLD.name, CURRENT_VERSION.name], held.log)

    states.mark_broken(CURRENT_VERSION.name, "a test said so")
    keeper.take_step()
    shop.click("ann", 5)
    ok, detail = state_check(shop)
    assert not ok
    assert "a test said so" in detail
    assert "local.state_versions clear" in detail
    assert any(held.versions[CURRENT_VERSION.name] != held.log for held in states.marks(source, [CURRENT_VERSION.name]))
    states.mark_broken(OLD.name, "and of this one")
    keeper.take_step()
    shop.post(behaviour("ann", 6))
    with pytest.raises(InfrastructureFault, match="every state version in use is broken"):
        shop.pump()


def test_the_command_lists_versions_and_clears_only_what_nobody_reads(
    world: Any, bodies: Bodies, servers: EmbeddedServers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--redis", servers.state_url, "--data", str(tmp_path)]
    records = world.publish(bodies(60, 41))
    world.processor(versions=[OLD, CURRENT_VERSION]).process(records)
    world.processor(versions=[CURRENT_VERSION]).process(world.publish(bodies(5, 42)))
    write_manifest(world.blobs, manifest("r-new", 2))
    releases = RedisReleaseStore(world.client)
    releases.set_allocation(Allocation(1, "", (("r-new", 1.0),)))
    assert main([*where, "list"]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert listed[CURRENT_VERSION.name].endswith("r-new" + " " * 37 + "folded")
    assert listed[OLD.name].endswith("unused: clear it")

    assert main([*where, "clear", CURRENT_VERSION.name]) == 2
    assert "--force" in capsys.readouterr().err
    before = {name for name in world.shards() if OLD.name not in name}
    assert main([*where, "clear", OLD.name]) == 0
    assert set(world.shards()) == before
    StateVersions(world.client).mark_broken(CURRENT_VERSION.name, "it raised")
    main([*where, "list"])
    assert "broken: it raised" in capsys.readouterr().out
    assert main([*where, "clear", CURRENT_VERSION.name]) == 0
    main([*where, "list"])
    assert "waits for its backfill" in capsys.readouterr().out
    assert StateVersions(world.client).broken() == {}
