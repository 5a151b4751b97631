"""Backfill leaves the very bytes that the stream would have left, writes the mark last, and leaves live state alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from batch.compact_lake import compact
from batch.run_nightly import seal_first
from feature_jobs.backfill_state import backfill_state, main
from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import HISTORY_SOURCES, PartitionKeys
from shared.adapters.redis_state import RedisStateStore
from shared.errors import InfrastructureFault, LakeConflict, MarkMoved
from shared.events import EventType, encode_event
from shared.features.definitions import STATE_VERSION
from shared.ingest.lake import ShopSettings, highest_sealed, publish_history, write_manifest, write_sealed
from shared.ingest.lake_manifest import LakeManifest
from shared.ingest.lake_table import unnumbered_table
from shared.ingest.seal import seal_partition
from shared.ports import Mark, Touched, UserWrite
from shared.settings import SECRET_DEFAULT, Settings
from tests.integration.conftest import START_AT
from tests.unit.builders import NOW, event

SECRET = "test secret"


def seal(world: Any, count: int, make: Callable[[int, int], list[bytes]]) -> None:
    """Stream events through the processor and seal them, so that the lake holds what the state was folded from."""
    passer_by = encode_event(event(user="passer-by", at=START_AT))
    world.processor().process(world.publish([*make(count, 11), passer_by]))
    seal_partition("live-1", 0, store=world.store, blobs=world.blobs)
    write_manifest(world.blobs, LakeManifest(version=1, shop=ShopSettings()))


def expiring(world: Any) -> set[str]:
    """The keys that vanish by themselves one day."""
    return {key for key in world.shards() if world.client.pttl(key) > 0}


def test_the_lake_rebuilds_what_the_stream_had_folded(
    world: Any, servers: EmbeddedServers, bodies: Callable[[int, int], list[bytes]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seal(world, 700, bodies)
    before, expire = world.shards(), expiring(world)
    assert len(before) > 12
    assert expire, "shoppers without preferences vanish when they are idle for long"
    world.client.flushall()
    with pytest.raises(InfrastructureFault, match="rebuild_state"):
        world.processor().process(world.publish(bodies(3, 12)))
    monkeypatch.setattr("feature_jobs.fold_rows.FOLD_ROWS", 97)
    assert backfill_state(tmp_path, servers.state_url, SECRET) == 1
    assert world.shards() == before
    assert expiring(world) == expire
    world.processor().process(world.broker.records)
    assert world.store.marks("live-1", 0, STATE_VERSION)[1].sequence == len(world.broker.records) - 1


def test_nothing_is_done_where_a_mark_stands(
    world: Any, servers: EmbeddedServers, bodies: Callable[[int, int], list[bytes]], tmp_path: Path
) -> None:
    seal(world, 200, bodies)
    keys = PartitionKeys("live-1", 0)
    (user, *_) = world.client.keys("*:u:*")
    world.client.set(user, b"not touched")
    assert backfill_state(tmp_path, servers.state_url, SECRET) == 0
    assert world.client.get(user) == b"not touched"
    assert world.client.get(keys.mark(STATE_VERSION)) is not None


def test_an_interrupted_load_has_no_mark_and_is_finished_by_the_next(
    world: Any, servers: EmbeddedServers, bodies: Callable[[int, int], list[bytes]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seal(world, 300, bodies)
    before = world.shards()
    world.client.flushall()

    def interrupted(*_arguments: object, loader: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RedisStateStore, "finish_load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backfill_state(tmp_path, servers.state_url, SECRET)
    assert world.store.marks("live-1", 0, STATE_VERSION) == (None, None)
    assert any(":u:" in key for key in world.shards()), "the shards were written before the mark"
    assert backfill_state(tmp_path, servers.state_url, SECRET) == 1
    assert world.shards() == before


def test_a_hole_in_the_lake_ends_the_load_before_it(
    world: Any, servers: EmbeddedServers, bodies: Callable[[int, int], list[bytes]], tmp_path: Path
) -> None:
    world.processor().process(world.publish(bodies(50, 1)))
    seal_partition("live-1", 0, store=world.store, blobs=world.blobs)
    world.processor().process(world.publish(bodies(50, 2)))
    for name in world.blobs.names("lake/sealed/"):
        world.blobs.delete(name)
    seal_partition("live-1", 0, store=world.store, blobs=world.blobs)
    write_manifest(world.blobs, LakeManifest(version=1, shop=ShopSettings()))
    world.client.flushall()
    backfill_state(tmp_path, servers.state_url, SECRET)
    assert world.store.marks("live-1", 0, STATE_VERSION) == (None, None), "sequence 0 is missing"


def test_the_night_seals_what_has_landed_before_it_begins(
    world: Any, servers: EmbeddedServers, bodies: Callable[[int, int], list[bytes]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    world.processor().process(world.publish(bodies(120, 4)))
    assert len(world.landing()) == 120
    settings = Settings(event_source="live-1", partition_count=1)
    seal_first(tmp_path, servers.state_url, settings)
    assert "sealed 120 landing rows of live-1" in capsys.readouterr().out
    assert world.landing() == []
    assert highest_sealed(world.blobs, "live-1", 0) == Mark(119, world.broker.records[-1].enqueued_at)


def test_a_hole_inside_the_parquet_ends_the_load_before_it_and_the_stream_fills_it(
    world: Any, servers: EmbeddedServers, bodies: Callable[[int, int], list[bytes]], tmp_path: Path
) -> None:
    for seed in (1, 2, 3):
        world.processor().process(world.publish(bodies(50, seed)))
        seal_partition("live-1", 0, store=world.store, blobs=world.blobs)
    before = world.shards()
    world.blobs.delete(sorted(world.blobs.names("lake/sealed/"))[1])
    compact(world.blobs)
    world.client.flushall()
    assert backfill_state(tmp_path, servers.state_url, SECRET) == 1
    assert world.store.marks("live-1", 0, STATE_VERSION)[1] == Mark(49, world.broker.records[49].enqueued_at)
    world.processor().catch_up()
    assert world.shards() == before


def test_rows_that_stand_in_two_files_count_once(
    world: Any, servers: EmbeddedServers, bodies: Callable[[int, int], list[bytes]], tmp_path: Path
) -> None:
    world.processor().process(world.publish(bodies(300, 5)))
    before = world.shards()
    rows = world.store.landing_rows("live-1", 0, 0, 299)
    for start, stop in ((0, 120), (80, 200), (190, 300)):
        write_sealed(world.blobs, rows[start:stop])
    write_manifest(world.blobs, LakeManifest(version=1, shop=ShopSettings()))
    world.client.flushall()
    assert backfill_state(tmp_path, servers.state_url, SECRET) == 1
    assert world.shards() == before


def test_a_sealed_file_that_lacks_a_row_is_refused(
    world: Any, servers: EmbeddedServers, bodies: Callable[[int, int], list[bytes]], tmp_path: Path
) -> None:
    world.processor().process(world.publish(bodies(20, 1)))
    rows = world.store.oldest_landing_rows("live-1", 0, 100)
    write_sealed(world.blobs, [*rows[:7], *rows[8:]])
    write_manifest(world.blobs, LakeManifest(version=1, shop=ShopSettings()))
    world.client.flushall()
    with pytest.raises(LakeConflict, match="lacks sequence 7"):
        backfill_state(tmp_path, servers.state_url, SECRET)
    assert world.store.marks("live-1", 0, STATE_VERSION) == (None, None)


def test_whoever_began_first_stops_when_another_backfill_takes_over(
    world: Any, servers: EmbeddedServers, bodies: Callable[[int, int], list[bytes]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seal(world, 300, bodies)
    before = world.shards()
    world.client.flushall()
    second: list[int] = []
    load = RedisStateStore.load

    def overtaken(store: RedisStateStore, *arguments: Any, **named: Any) -> None:
        if not second:
            second.append(0)
            second[0] = backfill_state(tmp_path, servers.state_url, SECRET)
        load(store, *arguments, **named)

    monkeypatch.setattr(RedisStateStore, "load", overtaken)
    with pytest.raises(MarkMoved):
        backfill_state(tmp_path, servers.state_url, SECRET)
    assert second == [1]
    assert world.shards() == before


def test_an_overtaken_load_writes_nothing_even_before_the_mark_stands(world: Any) -> None:
    world.store.begin_load("live-1", 0, "v", "first")
    world.store.load("live-1", 0, "v", users={"ann": UserWrite(b"old")}, loader="first")
    world.store.begin_load("live-1", 0, "v", "second")
    world.store.load("live-1", 0, "v", users={"ann": UserWrite(b"new")}, loader="second")
    with pytest.raises(MarkMoved, match="took over"):
        world.store.load("live-1", 0, "v", users={"ann": UserWrite(b"old")}, loader="first")
    with pytest.raises(MarkMoved, match="took over"):
        world.store.finish_load("live-1", 0, "v", Mark(4, 4), loader="first")
    world.store.finish_load("live-1", 0, "v", Mark(5, 5), loader="second")
    assert world.store.read("live-1", 0, ["v"], Touched(["ann"])).versions["v"].users == {"ann": b"new"}
    assert not world.client.keys("*loader*"), "nothing is left of a load that ended"


def history(blobs: FolderBlobStore, name: str, users: int) -> None:
    rows = [
        event(EventType.ITEM_UPDATED, user=None, item="item-1", at=NOW, changes={"title": "T"}),
        *(event(user=f"user-{number}", at=NOW + number) for number in range(users)),
    ]
    publish_history(blobs, name, 3, ShopSettings(), [unnumbered_table(rows)])


def test_only_partitions_with_rows_get_a_mark_and_replaced_history_expires(
    servers: EmbeddedServers, state_client: Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blobs, store = FolderBlobStore(tmp_path), RedisStateStore(state_client, SECRET_DEFAULT)
    history(blobs, "history-a", 1)
    command = ["--data", str(tmp_path), "--redis", servers.state_url]
    assert main(command) == 0
    marks = [store.marks("history-a", partition, STATE_VERSION)[1] for partition in range(3)]
    assert 1 <= sum(mark is not None for mark in marks) <= 2, "one user and one item cannot fill three partitions"
    assert Mark(0, NOW) in marks or Mark(1, NOW) in marks
    history(blobs, "history-b", 40)
    assert main(command) == 0
    assert "history-a is no longer in the lake" in capsys.readouterr().out
    assert all(state_client.pttl(key) > 0 for key in state_client.keys("{history-a.*}:*"))
    assert state_client.pttl(PartitionKeys("history-b", 0).mark(STATE_VERSION)) == -1
    history(blobs, "history-a", 1)  # it comes back before it is gone
    assert main(command) == 0
    assert state_client.pttl(next(iter(state_client.keys("{history-a.*}:mark:*")))) == -1
    assert state_client.hgetall(HISTORY_SOURCES) == {b"history-a": b"loaded", b"history-b": b"retired"}


def test_what_is_missing_is_said_in_one_line(
    servers: EmbeddedServers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path), "--redis", servers.state_url]) == 2
    assert "generate_shop" in capsys.readouterr().err
    history(FolderBlobStore(tmp_path), "history-a", 1)
    assert main(["--data", str(tmp_path), "--redis", f"unix://{tmp_path}/none.sock"]) == 2
    assert "does not answer" in capsys.readouterr().err
