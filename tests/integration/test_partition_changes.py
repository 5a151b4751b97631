"""A user's and an item's events may lie in any partitions: what is read is one clean pass over all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from feature_jobs.backfill_state import backfill_state
from local.embedded import EmbeddedServers
from shared.events import event_from_fields
from shared.features.aggregations import EXPIRES_AFTER_MS
from shared.features.fold import fold_user
from shared.features.items import ItemTable
from shared.features.replay import LoggedEvent, Replay
from shared.features.shard import UserShard, merge_shards
from shared.features.state import EntityState
from shared.ingest.lake import LakeManifest, ShopSettings, read_manifest, read_rows, write_manifest
from shared.ingest.logged_events import in_log_time, logged_events
from shared.ingest.seal import seal_partition
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord
from tests.integration.api_shop import ApiShop, behaviour, item_id, open_shop

USERS = [f"shopper-{number}" for number in range(12)]
KINDS = ["view", "view", "cart", "purchase"]
SOURCE = "live-1"


@contextmanager
def shop_of(servers: EmbeddedServers, folder: Path, *, first: bool, **settings: str) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, folder, stocked=first, **settings) as shop:
        if first:
            write_manifest(shop.blobs, LakeManifest(version=1, shop=ShopSettings()))
        shop.services.refresh()
        yield shop


def some_events(draw: random.Random, count: int) -> list[dict[str, Any]]:
    return [behaviour(draw.choice(USERS), draw.randrange(240), draw.choice(KINDS)) for _ in range(count)]


def whole_log(shop: ApiShop) -> list[LoggedEvent]:
    """Every accepted event, in one order that keeps each partition's."""
    return list(logged_events(in_log_time(read_rows(shop.blobs))))


def in_one_shard(log: Sequence[LoggedEvent], user_id: str) -> EntityState:
    """The oracle: as if there were one partition."""
    shard = UserShard.empty()
    for place, one in enumerate(log):
        if one.event.user_id == user_id:
            assert fold_user(shard, one.event, one.enqueued_at, place)
    return shard.state


def assert_read_as_one(shop: ApiShop, log: Sequence[LoggedEvent], as_of: int) -> list[int]:
    """Users and items as the API reads them equal the one clean pass; the answer is how many shards each user has."""
    release = shop.services.releases.main_release()
    shards_of = []
    for user_id in USERS:
        read = shop.services.keeper._reader.shopper(user_id, release)
        found = [shard for shard in read.shards.values() if shard is not None]
        shards_of.append(len(found))
        assert_equal_states(merge_shards(found, as_of).state, in_one_shard(log, user_id), as_of)
    expected = ItemTable()
    for one in log:
        expected.fold(one.event, one.enqueued_at)
    table = release.items._table
    rows = np.array([table.row_of[item] for item in expected.row_of], dtype=np.int64)
    there = np.arange(len(expected), dtype=np.int64)
    assert np.array_equal(table.counters.counts_at(rows, as_of), expected.counters.counts_at(there, as_of))
    np.testing.assert_allclose(
        table.counters.decayed_at(rows, as_of), expected.counters.decayed_at(there, as_of), rtol=1e-9, atol=1e-12
    )
    return shards_of


def assert_equal_states(found: EntityState, expected: EntityState, as_of: int) -> None:
    assert found.counts.tolist() == expected.counts.tolist()
    assert found.earliest.tolist() == expected.earliest.tolist()
    assert found.lists == expected.lists
    np.testing.assert_allclose(found.decayed_at(as_of), expected.decayed_at(as_of), rtol=1e-9, atol=1e-12)


def test_the_partition_count_changes_twice_and_nothing_is_lost(servers: EmbeddedServers, tmp_path: Path) -> None:
    draw = random.Random(46)
    posted = 0
    for place, count in enumerate((4, 6, 3)):
        with shop_of(servers, tmp_path, first=place == 0, PARTITION_COUNT=str(count)) as shop:
            for pumped in (True, False):  # what the old consumers leave unread, only comparing the marks will find
                events = some_events(draw, 150)
                posted += len(events)
                shop.post(*events)
                if pumped:
                    shop.pump()
            shop.services.sealer.run()
            known = read_manifest(shop.blobs)
            assert known is not None
            assert known.sources[0].partition_counts == (4, 6, 3)[: place + 1]
            if place == 1:
                unread = some_events(draw, 60)
                posted += len(unread)
                shop.post(*unread)
    with shop_of(servers, tmp_path, first=False, PARTITION_COUNT="3") as shop:
        shop.settle()
        shop.services.sealer.run()
        shop.services.follower.follow()
        log = whole_log(shop)
        assert sum(one.event.user_id in USERS for one in log) == posted
        assert {one.partition for one in log} == set(range(6))
        shards_of = assert_read_as_one(shop, log, shop.clock())
        assert max(shards_of) == 3, "somebody must be found in three partitions"
        assert len(set(shards_of)) > 1
        assert shop.get(f"/user_profile/{USERS[0]}")["known"]


@pytest.mark.parametrize("keyed_by", ["another hash", "no key"])
def test_foreign_producers_may_put_a_user_anywhere(servers: EmbeddedServers, tmp_path: Path, keyed_by: str) -> None:
    draw = random.Random(47)
    with shop_of(servers, tmp_path, first=True, EVENT_PRODUCERS="foreign") as shop:
        events = some_events(draw, 300)
        for place, event in enumerate(events):
            key = f"{event['user_id']} by another hash" if keyed_by == "another hash" else str(place)
            shop.broker.append([(key, msgspec.json.encode(event))])
        newest = {"hidden_items": [item_id(9)]}
        for place, changes in enumerate([{"hidden_items": []}, newest]):
            at = (datetime.now(UTC) + timedelta(seconds=place - 2)).isoformat()  # of one instant, chance decides
            wish = {**behaviour(USERS[0], 0, occurred_at=at), "event_type": "preferences_set", "changes": changes}
            del wish["item_id"], wish["price_cents"]
            shop.broker.append([(f"wish {place}", msgspec.json.encode(wish))])
        shop.settle()
        shop.services.sealer.run()
        log = whole_log(shop)
        shards_of = assert_read_as_one(shop, log, shop.clock())
        assert max(shards_of) > (1 if keyed_by == "no key" else 0)
        assert shop.get(f"/user_profile/{USERS[0]}")["preferences"] == newest
        shop.clock.at = shop.clock() + 1000
        seen = shop.page(USERS[1], limit=5)
        assert seen["fallback"] is None
    with shop_of(servers, tmp_path, first=False) as shop, pytest.raises(AssertionError):
        assert_read_as_one(shop, log, shop.clock())  # who says that they are ours reads one partition of a user


def sent(at: int, number: int) -> bytes:
    event = event_from_fields({
        "event_id": f"e-{number}", "event_type": "view", "user_id": "ann", "item_id": "lamp",
        "occurred_at": f"{np.datetime64(at, 'ms')}Z",
    })  # fmt: skip
    return msgspec.json.encode(event)


@pytest.mark.parametrize("late_ms", [-1, 0, 1])
def test_behaviour_expires_after_400_days_and_everyone_agrees_when(
    world: Any, servers: EmbeddedServers, late_ms: int
) -> None:
    """Judged on enqueued_at in log order: by the stream, by a replay of the lake, by a backfill, and at read."""
    start = world.publish([sent(1_780_000_000_000, 0)])[0].enqueued_at
    back_at = start + EXPIRES_AFTER_MS + late_ms
    world.broker.records.append(LogRecord(SOURCE, 0, 1, back_at, sent(start - 5000, 1)))  # its client's clock is old
    processor = world.processor()
    processor.process(world.broker.records[:1])
    (name,) = [one for one in world.shards() if f":u:{CURRENT_VERSION.name}:" in one]
    once = UserShard.decode(world.client.get(name))
    views = [merge_shards([once], back_at + more).state.counts.sum() for more in (-1, 0, 1)]
    assert views == [int(late_ms + more <= 0) for more in (-1, 0, 1)], "at read"
    processor.process(world.broker.records)
    stored = UserShard.decode(world.client.get(name))
    assert stored.state.counts.sum() == (1 if late_ms > 0 else 2), "in the fold"

    seal_partition(SOURCE, 0, store=world.store, blobs=world.blobs)
    replay = Replay()
    for logged in logged_events(read_rows(world.blobs)):
        replay.fold(logged)
    (shard,) = replay.users.shards("ann").values()
    assert shard.encode() == stored.encode(), "in a replay"

    write_manifest(world.blobs, LakeManifest(version=1, shop=ShopSettings()))
    streamed = world.shards()
    world.client.flushall()
    backfill_state(world.blobs.root, servers.state_url, "test secret", engine="local")
    assert world.shards() == streamed, "in a backfill"

    ((item, counters),) = world.client.hgetall(world.keys().items(CURRENT_VERSION.name)).items()
    online = ItemTable()
    online.load_part((SOURCE, 0), {int.from_bytes(item, "little"): counters})
    for as_of in (start, back_at, back_at + EXPIRES_AFTER_MS, back_at + EXPIRES_AFTER_MS + 1):
        rows = np.array([0])
        seen = online.counters.counts_at(rows, as_of)
        assert seen.tolist() == replay.items.counters.counts_at(rows, as_of).tolist()
        assert bool(seen.any()) == (as_of <= back_at + EXPIRES_AFTER_MS), "an item that is idle reads as zero"
