"""Which releases a worker serves, over real stores: switches, failures, several at once, several event sources."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from functions.bootstrap import Services, compose
from local.embedded import EmbeddedServers
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.events import Event, EventSource, event_from_fields, id_hash
from shared.features.definitions import STATE_VERSION
from shared.features.fold import ItemCounters, fold_item, fold_user
from shared.features.shard import UserShard
from shared.ingest.lake import LakeManifest, ShopSettings, SourceEntry, write_manifest
from shared.ingest.partitioning import with_live
from shared.ports import Allocation, Mark, UserWrite
from tests.integration.api_shop import (
    RELEASE,
    ApiShop,
    behaviour,
    indexes,
    neighbours,
    open_shop,
    problem_of,
    publish_release,
)

HISTORY = EventSource("history-0123456789ab", (2,))
LIVE = EventSource("live-1", (4,))


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


def allocate(shop: ApiShop, **weights: float) -> None:
    before = shop.releases.allocation()
    assert before is not None
    releases = tuple((name.replace("_", "-"), weight) for name, weight in weights.items())
    shop.releases.set_allocation(Allocation(before.version + 1, "salt", releases))


def served(shop: ApiShop, users: int = 60) -> set[str]:
    return {shop.services.releases.release_for(f"u-{number}").release_id for number in range(users)}


def loaded(services: Services) -> set[str]:
    return {release.release_id for release in services.releases.loaded}


def test_two_releases_share_the_users_and_each_keeps_hers(shop: ApiShop) -> None:
    publish_release(shop.blobs, shop.releases, "r-b", shop.settings)
    allocate(shop, r_test_1=0.5, r_b=0.5)
    assert served(shop) == {RELEASE}
    shop.services.releases.refresh()
    assert served(shop) == {RELEASE, "r-b"}
    assert {shop.page("ann")["release"] for _ in range(5)} == {shop.page("ann")["release"]}
    allocate(shop, r_b=1.0, r_test_1=0.0)
    shop.services.releases.refresh()
    assert served(shop) == {"r-b"}
    allocate(shop, r_test_1=1.0)
    shop.services.releases.refresh()
    assert served(shop) == {RELEASE}
    assert shop.page("ann")["release"] == RELEASE


def test_an_allocation_waits_for_all_its_releases_but_a_new_worker_takes_what_there_is(shop: ApiShop) -> None:
    allocate(shop, r_test_1=0.5, r_missing=0.5)
    shop.services.releases.refresh()
    assert served(shop) == {RELEASE}
    assert "r-missing" in shop.services.releases.failures

    publish_release(shop.blobs, shop.releases, "r-waits", shop.settings)
    allocate(shop, r_waits=0.5, r_missing=0.5)
    for _ in range(3):
        shop.services.releases.refresh()
    assert served(shop) == {RELEASE}
    loads = shop.services.metrics.releases.labels("loaded")._value.get()
    assert loads == 2, "what has loaded waits and is not loaded again"
    allocate(shop, r_test_1=0.5, r_missing=0.5)

    fresh = compose(shop.settings)
    try:
        fresh.refresh()
        assert loaded(fresh) == {RELEASE}
        publish_release(shop.blobs, shop.releases, "r-missing", shop.settings)
        fresh.releases.refresh()
        assert loaded(fresh) == {RELEASE}, "a failure is not tried again at once"
        fresh.releases.seconds = lambda: time.monotonic() + 60
        fresh.releases.refresh()
        assert loaded(fresh) == {RELEASE, "r-missing"}
        assert fresh.releases.failures == {}
    finally:
        fresh.close()


def test_a_worker_that_starts_without_redis_serves_once_it_is_there(tmp_path: Path) -> None:
    with (
        EmbeddedServers(tmp_path / "servers") as servers,
        open_shop(servers.state_url, servers.log_url, tmp_path / "blobs") as shop,
    ):
        assert servers.state is not None
        servers.state.kill()
        late = compose(replace(shop.settings, allocation_poll_ms=20))
        late.start()
        try:
            assert late.releases.loaded == ()
            servers.state.start()
            deadline = time.monotonic() + 20
            while not late.releases.loaded:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            late.close()


def test_state_of_ingested_history_and_of_the_live_stream_are_one_shopper(shop: ApiShop) -> None:
    """Readiness is red while the lake knows a history that the state does not, and names the command."""
    shop.click("old", 100)
    write_manifest(
        shop.blobs,
        LakeManifest(
            version=1,
            shop=ShopSettings(),
            sources=(SourceEntry(name=HISTORY.name, partition_counts=(2,), kind="history"),),
            marks={HISTORY.name: {"0": (5, 1000), "1": (5, 1000)}},
        ),
    )
    shop.publish("r-history", sources=(HISTORY, LIVE))
    shop.services.refresh()
    assert shop.page("old")["release"] == "r-history"
    detail = problem_of(shop.client.get("/health/ready"), 503)["detail"]
    assert "rebuild_state" in detail
    assert f"{HISTORY.name}/0" in detail

    load_history(shop, "old", event_from_fields(behaviour("old", 200, "purchase")))
    shop.services.follower.follow()
    assert shop.get("/health/ready")["status"] == "ready"
    profile = shop.get("/user_profile/old")
    assert profile["features"]["user_purchase_count_ever"] == 1
    assert profile["features"]["user_view_count_ever"] == 1
    page = indexes(shop.page("old", limit=60))
    assert set(page) & set(neighbours(200))
    assert set(page) & set(neighbours(100))
    assert shop.get("/popular", limit=1)["items"][0]["item_id"] == "sku-0200"


def load_history(shop: ApiShop, user_id: str, event: Event) -> None:
    """What backfill leaves: shards, then marks."""
    with connect(shop.settings.redis_url) as client:
        store = RedisStateStore(client, shop.settings.user_key_secret)
        (partition,) = HISTORY.partitions_of(user_id)
        shard, counters = UserShard.empty(), ItemCounters.empty()
        fold_user(shard, event, event.occurred_at_ms, 0)
        for _ in range(9):
            fold_item(counters, event, event.occurred_at_ms)
        assert event.item_id is not None
        store.load(
            HISTORY.name,
            partition,
            STATE_VERSION,
            users={user_id: UserWrite(shard.encode())},
            items={id_hash(event.item_id): counters.encode()},
        )
        for number in HISTORY.partitions():
            store.finish_load(HISTORY.name, number, STATE_VERSION, Mark(5, event.occurred_at_ms))


def test_the_live_stream_is_read_with_every_partition_count_it_has_had() -> None:
    live = EventSource("live-1", (8,))
    assert with_live((HISTORY,), live) == (HISTORY, live)
    assert with_live((EventSource("live-1", (4,)), HISTORY), live) == (EventSource("live-1", (4, 8)), HISTORY)
    assert with_live((live,), live) == (live,)
