"""An erasure reaches every partition there ever was, and what was on its way when it came brings nothing back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from batch.compact_lake import compact
from feature_jobs.backfill_state import backfill_state
from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import user_key
from shared.adapters.redis_log import RedisEventLog
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.user_keys import keyed_with
from shared.errors import MarkMoved
from shared.events import EventSource, encode_event, event_from_fields, from_ms, partition_of
from shared.features.shard import UserShard
from shared.features.state import EMPTY_AT
from shared.ingest.dead_letters import Fate, Wanted, dead_letters, replay
from shared.ingest.ended_log import append_to_ended
from shared.ingest.erasures import ErasurePlace, Receipt, new_receipt, read_receipt
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake import ShopSettings, publish_history, read_manifest, read_range, write_sealed
from shared.ingest.lake_table import unnumbered_table
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LandingRow, PartitionCommit, Verdict
from shared.settings import SECRET_DEFAULT
from tests.integration.api_shop import RELEASE, behaviour, open_shop
from tests.integration.conftest import SOURCE, START_AT, World
from tests.integration.old_version import OLD
from tests.integration.test_erasure import USER, assert_unknown, done, erase, stored_shards

HISTORY = "history-a"
SECRET = "test secret"


def erased_in(shards: dict[str, UserShard]) -> set[str]:
    """The partitions with a tombstone; nothing of hers may stand without one, or beside one."""
    assert all(shard.erased_at != EMPTY_AT for shard in shards.values())
    assert {shard.state.newest_at for shard in shards.values()} <= {EMPTY_AT}
    return places(shards)


def places(shards: dict[str, UserShard]) -> set[str]:
    return {name.partition("}")[0].strip("{") for name in shards}


def test_wherever_her_events_ever_went(servers: EmbeddedServers, tmp_path: Path, state_client: Redis) -> None:
    """Three partition counts of one stream, a stream before it, and an ingested history with backfilled state."""
    urls = servers.state_url, servers.log_url, tmp_path
    past = [event_from_fields(behaviour(USER, place, occurred_at="2026-03-01T08:00:00Z")) for place in range(3)]
    publish_history(FolderBlobStore(tmp_path), HISTORY, 2, ShopSettings(), [unnumbered_table(past)])
    backfill_state(tmp_path, servers.state_url, SECRET_DEFAULT, engine="local")
    streams = [("live-0", 2), ("live-1", 4), ("live-1", 6), ("live-1", 3)]
    for name, count in streams:
        with open_shop(*urls, stocked=False, EVENT_SOURCE=name, PARTITION_COUNT=str(count)) as shop:
            shop.click(USER, count)
            shop.services.sealer.run()
    wanted = {f"{name}.{partition_of(USER, count)}" for name, count in [(HISTORY, 2), *streams]}
    assert len(wanted) == 5
    with open_shop(*urls, stocked=False, PARTITION_COUNT="3") as shop:
        assert places(stored_shards(state_client, shop)) == wanted
        shop.publish(RELEASE)
        shop.services.refresh()
        assert shop.get(f"/user_profile/{USER}")["known"]
        receipt = erase(shop)
        assert_unknown(shop)
        shop.pump()
        shop.services.sealer.run()
        shop.services.sealer.run()  # what the first one appended or folded last
        assert erased_in(stored_shards(state_client, shop)) == wanted
        assert {"state", "landing"} <= done(shop, receipt)
        held = read_receipt(shop.blobs, receipt)
        assert held is not None
        assert {f"{place.source}.{place.partition}" for place in held.places} == wanted
        for place in held.places:
            assert place.sequence is not None
            *_, row = read_range(shop.blobs, place.source, place.partition, 0, 10**6)
            assert (row.sequence, row.verdict) == (place.sequence, Verdict.ACCEPTED)
            assert receipt.encode() in row.body, "each partition's own log has it, landed and sealed like any row"
    state_client.flushall()
    backfill_state(tmp_path, servers.state_url, SECRET_DEFAULT, engine="local")
    assert erased_in(stored_shards(state_client, shop)) == wanted, "and so has what is rebuilt from the lake"


def test_a_foreign_stream_gets_it_in_every_partition(
    servers: EmbeddedServers, tmp_path: Path, state_client: Redis
) -> None:
    with open_shop(
        servers.state_url, servers.log_url, tmp_path, stocked=False, EVENT_PRODUCERS="foreign", PARTITION_COUNT="3"
    ) as shop:
        shop.broker.append_to([(partition, seen(USER, partition, shop.clock())) for partition in (0, 2)])
        shop.settle()
        erase(shop)
        shop.settle()
        shop.broker.append_to([(1, seen(USER, 1, shop.clock()))])
        shop.settle()
        found = stored_shards(state_client, shop)
        assert places(found) == {"live-1.0", "live-1.1", "live-1.2"}
        assert all(shard.erased_at != EMPTY_AT for shard in found.values()), "also where she had nothing before"
        assert [name for name, shard in found.items() if shard.state.newest_at != EMPTY_AT] == [
            name for name in found if name.startswith("{live-1.1}")
        ]


def receipt_of(user_id: str, number: int, erased_at: int, *where: ErasurePlace) -> Receipt:
    return new_receipt(f"{number:032x}", user_key(user_id, SECRET).hex(), erased_at, where)


def seen(user_id: str, number: int, at: int) -> bytes:
    event = behaviour(user_id, number, event_id=f"seen-{user_id}-{number}", occurred_at=from_ms(at).isoformat())
    return encode_event(event_from_fields(event))


def shard(world: World, user_id: str, version: AnyVersion = CURRENT_VERSION) -> UserShard:
    stored: Any = world.client.get(world.keys().user(version.name, user_key(user_id, SECRET)))
    found: UserShard = version.decode_user(stored)
    return found


class Interrupted:
    """The store, with something else happening right before its n-th commit."""

    def __init__(self, store: RedisStateStore, meanwhile: Callable[[], object], commit: int = 1) -> None:
        self._store = store
        self._meanwhile = meanwhile
        self._left = commit
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, commit: PartitionCommit) -> None:
        self._left -= 1
        if self._left == 0:
            self._meanwhile()
        try:
            self._store.commit(commit)
        except MarkMoved:
            self.refused += 1
            raise


@pytest.mark.parametrize("before", ["her events", "the erasure"])
def test_a_commit_in_flight_is_refused_and_what_comes_again_is_below_the_mark(world: World, before: str) -> None:
    """Two processors overlap: one has folded what came before the erasure and commits after the other passed it."""
    receipt = receipt_of("ann", 1, START_AT + 20_000)
    before_it = [seen(user_id, number, START_AT) for number in range(10) for user_id in ("ann", "bob")]
    after_it = [seen("ann", 50, START_AT + 21_000), seen("ann", 51, START_AT + 1), seen("bob", 50, START_AT)]
    records = world.publish([*before_it, encode_event(receipt.event()), *after_it])
    world.processor().process(records)
    clean = world.shards()
    assert shard(world, "ann").erased_at == receipt.erased_at
    assert shard(world, "ann").state.counts.sum() == 1, "one of her events came after it"
    assert shard(world, "bob").state.counts.sum() == 11

    world.client.flushall()
    store = Interrupted(
        world.store, lambda: world.processor().process(records), commit=1 if before == "her events" else 2
    )
    overtaken = world.processor(store=store)
    overtaken.process(records[:20] if before == "her events" else records)
    assert store.refused == 1
    assert world.shards() == clean
    for again in (records[:20], records[15:], records):
        overtaken.process(again)
        world.processor().process(again)
        assert world.shards() == clean, "redelivered"


def test_a_processor_killed_around_an_erasure_leaves_it_whole_or_untouched(world: World) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    receipt = receipt_of("ann", 1, START_AT + 10_000)
    records = world.publish([*(seen("ann", number, START_AT) for number in range(5)), encode_event(receipt.event())])
    for commit in (1, 2):
        world.client.flushall()
        with pytest.raises(Killed):
            world.processor(store=Interrupted(world.store, kill, commit)).process(records)
        assert shard(world, "ann").state.counts.sum() == (0 if commit == 1 else 5)
        world.processor().process(records)
        assert shard(world, "ann").erased_at == receipt.erased_at
        assert shard(world, "ann").state.newest_at == EMPTY_AT


def test_old_and_new_state_versions_have_their_tombstones_side_by_side(world: World) -> None:
    receipt = receipt_of("ann", 1, START_AT + 1000)
    bodies = [seen("ann", 1, START_AT), encode_event(receipt.event()), seen("ann", 2, START_AT + 2000)]
    records = world.publish(bodies)
    world.processor(versions=[OLD, CURRENT_VERSION]).process(records)
    for version in (OLD, CURRENT_VERSION):
        assert shard(world, "ann", version).erased_at == receipt.erased_at
        assert shard(world, "ann", version).state.counts.sum() == 1


def append(world: World, receipt: Receipt, versions: tuple[AnyVersion, ...] = (CURRENT_VERSION,)) -> int | None:
    return append_to_ended(receipt, SOURCE, 0, store=world.store, versions=versions, blobs=world.blobs)


def test_a_partition_without_a_broker_takes_each_erasure_once(world: World) -> None:
    users = [f"user-{number}" for number in range(6)]
    world.processor().process(world.publish([seen(user_id, 1, START_AT) for user_id in users]))
    erased_at = START_AT + 100_000
    receipts = [receipt_of(user_id, number, erased_at) for number, user_id in enumerate(users[:5])]
    told: list[int | None] = []
    threads = [
        threading.Thread(target=lambda one=receipt: told.append(append(world, one)))
        for receipt in receipts
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one for one in told if one is not None) == [6, 6, 7, 7, 8, 8, 9, 9, 10, 10]
    assert world.landing()[6:] == [(sequence, Verdict.ACCEPTED) for sequence in range(6, 11)]
    for user_id in users[:5]:
        assert shard(world, user_id).erased_at == erased_at
    assert shard(world, "user-5").state.counts.sum() == 1
    before = world.shards()
    assert [append(world, receipt) for receipt in receipts] == [shard(world, user_id).sequence for user_id in users[:5]]
    assert append(world, receipt_of("somebody else", 9, erased_at)) is None, "nothing of hers is there"
    assert world.shards() == before


def test_a_history_that_is_replaced_does_not_come_back_by_its_erasures(tmp_path: Path) -> None:
    blobs = FolderBlobStore(tmp_path)
    past = [event_from_fields(behaviour(USER, 1, occurred_at="2026-03-01T08:00:00Z"))]
    publish_history(blobs, HISTORY, 1, ShopSettings(), [unnumbered_table(past)])
    body = encode_event(receipt_of(USER, 1, START_AT).event())
    write_sealed(blobs, [LandingRow(HISTORY, 0, 1, START_AT, Verdict.ACCEPTED, body)])
    manifest = publish_history(blobs, "history-b", 1, ShopSettings(), [unnumbered_table(past)])
    assert [source.name for source in manifest.sources] == ["history-b"]
    compact(blobs, key_of=keyed_with(SECRET))
    after = read_manifest(blobs)
    assert after is not None
    assert [source.name for source in after.sources] == ["history-b"]


@pytest.mark.parametrize("apart_ms", [0, 1000])
def test_another_erasure_that_takes_the_sequence_first_costs_one_more_look(world: World, apart_ms: int) -> None:
    world.processor().process(world.publish([seen(user_id, 1, START_AT) for user_id in ("ann", "bob")]))
    mine, other = receipt_of("ann", 1, START_AT + 5000), receipt_of("bob", 2, START_AT + 5000 + apart_ms)
    store: Any = Interrupted(world.store, lambda: append(world, other))
    told = append_to_ended(mine, SOURCE, 0, store=store, versions=(CURRENT_VERSION,), blobs=world.blobs)
    assert (told, store.refused) == (3, 1)
    assert [shard(world, user_id).sequence for user_id in ("bob", "ann")] == [2, 3]
    assert [shard(world, user_id).erased_at for user_id in ("ann", "bob")] == [mine.erased_at, other.erased_at]


def test_a_version_loaded_before_earlier_erasures_catches_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.ingest.processor.LAGGING_STEPS", 1)
    users = [f"user-{number}" for number in range(5)]
    world.processor(versions=[OLD, CURRENT_VERSION]).process(world.publish([seen(one, 1, START_AT) for one in users]))
    receipts = [receipt_of(user_id, number, START_AT + 6000 + number) for number, user_id in enumerate(users)]
    for number, receipt in enumerate(receipts[:4]):
        assert append(world, receipt, (CURRENT_VERSION,)) == 5 + number
    assert append(world, receipts[4], (CURRENT_VERSION, OLD)) == 9
    assert world.landing()[-1] == (9, Verdict.ACCEPTED), "once"
    for user_id, receipt in zip(users, receipts, strict=True):
        for version in (OLD, CURRENT_VERSION):
            assert shard(world, user_id, version).erased_at == receipt.erased_at


def test_an_erasure_is_no_dead_letter_to_replay(world: World, log_client: Redis) -> None:
    receipt = receipt_of("ann", 1, START_AT)
    records = world.publish([encode_event(receipt.event())])
    world.processor(versions=[world.poisoned({receipt.event().event_id})]).process(records)
    streams = [EventSource(SOURCE, (1,))]
    letters = dead_letters(world.blobs, world.store, streams, Wanted())
    assert len(letters) == 1
    producer = RedisEventLog(log_client, SOURCE, 1)
    done_with = replay(
        letters, blobs=world.blobs, store=world.store, streams=streams, producer=producer, clock=lambda: START_AT
    )
    assert [fate for _, fate in done_with] == [Fate.ERASURE]
    assert producer.last_sequence(0) is None
