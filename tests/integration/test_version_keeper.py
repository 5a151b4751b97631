"""What a worker folds follows what is published; readiness and a command tell how each state version stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.embedded import EmbeddedServers
from local.state_versions import main
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.redis_versions import StateVersions
from shared.errors import CorruptRecord, InfrastructureFault, StreamRecreated
from shared.events import EventSource
from shared.ingest.state_versions import CURRENT_LAYOUTS, CURRENT_VERSION, described_version, needed_versions
from shared.ports import Allocation, Mark
from shared.releases.manifest import ReleaseManifest, write_manifest
from tests.integration.api_shop import ApiShop, behaviour, open_shop
from tests.integration.old_version import OLD, OLD_LAYOUTS

Bodies = Callable[[int, int], list[bytes]]


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


def test_a_partition_that_cannot_catch_up_is_no_reason_to_leave_the_others(
    servers: EmbeddedServers, tmp_path: Path
) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as shop:
        source = shop.settings.event_source
        shop.post(*(behaviour(f"u-{number}", 1) for number in range(40)))
        client = shop.releases._client
        client.set(f"{{{source}.0}}:logmark", "999:999")
        with pytest.raises(StreamRecreated, match="ends at"):
            shop.services.sealer.run()
        held = StateVersions(client).marks(EventSource(source, (4,)), [])
        assert [one.log.sequence if one.log else None for one in held[1:]] == [
            shop.broker.last_sequence(partition) for partition in (1, 2, 3)
        ]
