"""The Spark engine of the backfill: the same bytes as the engine without Spark, which are the stream's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.compact_lake import compact
from batch.spark import stop_session
from feature_jobs.backfill_state import backfill_state
from local.embedded import EmbeddedServers
from shared.adapters.user_keys import keyed_with
from shared.events import EventType
from shared.features.aggregations import DAY_MS
from shared.features.definitions import STATE_VERSION
from shared.features.shard import UserShard
from shared.features.state import EMPTY_AT
from shared.ingest.lake import ShopSettings, publish_history, write_sealed
from shared.ingest.lake_table import unnumbered_table
from shared.ingest.seal import seal_partition
from tests.integration.conftest import START_AT, make_bodies
from tests.unit.builders import event

SECRET = "test secret"

pytestmark = [pytest.mark.spark, pytest.mark.timeout(400), pytest.mark.xdist_group("spark")]


@pytest.fixture(autouse=True)
def session_ends() -> Iterator[None]:
    yield
    stop_session()


def publish_past(world: Any) -> None:
    """A history of two spells, in which shoppers come back after 401 days."""
    draw = random.Random(3)
    start = START_AT - 500 * DAY_MS
    rows = [
        event(
            EventType.ITEM_UPDATED, user=None, item=f"item-{n}", at=start, event_id=f"new {n}", changes={"title": "T"}
        )
        for n in range(30)
    ]
    moments = [start + draw.choice((0, 401)) * DAY_MS + draw.randrange(10 * DAY_MS) for _ in range(1500)]
    for n, at in enumerate(sorted(moments)):
        kind = draw.choice([EventType.VIEW, EventType.VIEW, EventType.CART, EventType.PURCHASE])
        rows.append(
            event(kind, user=f"user-{draw.randrange(60)}", item=f"item-{draw.randrange(30)}", at=at, event_id=f"p{n}",
                  price_cents=draw.randrange(9999), context={"page": "home"})
        )  # fmt: skip
    rows = sorted([*rows, *(event(user="late", at=at, event_id=f"late {at}") for at in (start, start + 401 * DAY_MS))],
                  key=lambda one: one.occurred_at)  # fmt: skip
    publish_history(world.blobs, "history-a", 3, ShopSettings(), [unnumbered_table(rows)])


def without_erased(found: dict[str, Any]) -> dict[str, Any]:
    """All as it is, but of erased users what redaction leaves: tombstones without event ids, and no void shards."""
    users = {name: UserShard.decode(data) for name, data in found.items() if ":u:" in name}
    erased = {name.rpartition(":")[2] for name, shard in users.items() if shard.erased_at != EMPTY_AT}
    assert len(erased) >= 3
    told = {name: data for name, data in found.items() if name.rpartition(":")[2] not in erased}
    for name, shard in users.items():
        if shard.erased_at != EMPTY_AT:
            told[name] = (shard.erased_at, shard.state.encode(), shard.preferences_version)
    return told


def test_spark_leaves_the_bytes_that_the_stream_left(world: Any, servers: EmbeddedServers, tmp_path: Path) -> None:
    publish_past(world)
    assert backfill_state(tmp_path, servers.state_url, SECRET, engine="local") == 3
    world.processor().process(world.publish(make_bodies(700, 11)))
    seal_partition("live-1", 0, store=world.store, blobs=world.blobs)
    compact(world.blobs, key_of=keyed_with(SECRET))
    world.processor().process(world.publish(make_bodies(300, 12)))
    rows = world.store.oldest_landing_rows("live-1", 0, 1000)
    write_sealed(world.blobs, rows[:200])
    write_sealed(world.blobs, rows[100:])
    streamed = world.shards()
    expire = {key for key in streamed if world.client.pttl(key) > 0}
    assert expire
    world.client.flushall()
    assert backfill_state(tmp_path, servers.state_url, SECRET, engine="spark", master="local[2]") == 4
    assert without_erased(world.shards()) == without_erased(streamed)
    marks = [world.store.marks(source, part, STATE_VERSION) for source, part in (("history-a", 0), ("live-1", 0))]
    assert all(log_mark == mark and mark is not None for log_mark, mark in marks)
    assert {key for key in streamed if world.client.pttl(key) > 0} <= expire
    assert not list((tmp_path / "spark").glob("backfill*")), "nothing of the job is left"
    world.processor().process(world.publish(make_bodies(100, 13)))
    goes_on = world.shards()
    world.client.flushall()
    assert backfill_state(tmp_path, servers.state_url, SECRET, engine="local") == 4
    world.processor().process(world.broker.records)
    assert world.shards() == goes_on
