"""After an erasure her id stands nowhere: not after commits under way, redelivery, backfills and the next night."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from batch.build_interactions import build_interactions
from batch.compact_lake import compact
from batch.published_lists import user_records
from feature_jobs.backfill_state import backfill_state
from feature_jobs.check_parity import check_parity
from feature_jobs.log_days import events_by_day
from local.embedded import STATE_OPTIONS, EmbeddedServer
from shared.adapters.activation import check_usable
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import overlay_key, user_key
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.user_keys import keyed_with
from shared.events import EventSource, encode_event
from shared.features.shard import UserShard
from shared.features.state import EMPTY_AT
from shared.ingest.erasures import all_receipts, read_receipt
from shared.ingest.lake import read_rows
from shared.ingest.processor import EventProcessor
from shared.ingest.seal import seal_partition
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import PartitionCommit
from shared.releases.lists import decode_record
from shared.settings import SECRET_DEFAULT
from tests.integration.api_shop import behaviour
from tests.integration.conftest import START_AT
from tests.integration.erasure_world import (
    KEY_OF,
    ErasureWorld,
    dead_letter,
    erasure_world,
    make_candidates,
    preferences,
)
from tests.integration.traces import files_with, keys_with, word_of
from tests.unit.builders import event

HER = 'mallory "o\'neill" zażółć-7f3a91'
NAMED = word_of(HER, but_not_before="2")
OTHERS = "crowd-1", "crowd-5", HER + "2", HER[1:], "bob"
MINUTE_MS, HOUR_MS = 60 * 1000, 3600 * 1000

pytestmark = pytest.mark.timeout(300)


class CommitsLate(RedisStateStore):
    """Before its first commit another processor does the same work and more: the chunk was read before, and is late."""

    def __init__(self, client: Redis, overtake: Any) -> None:
        super().__init__(client, SECRET_DEFAULT)
        self.overtake = overtake
        self.refused = False

    def commit(self, commit: PartitionCommit) -> None:
        if not self.refused:
            self.refused = True
            self.overtake()
        super().commit(commit)


def shards(client: Redis) -> dict[bytes, Any]:
    """Users' shards and items' counters and fields, by key."""
    found: dict[bytes, Any] = {}
    for name in client.scan_iter("{*"):
        if b":u:" in name:
            found[name] = client.get(name)
        elif b":i:" in name or name.endswith(b":c"):
            found[name] = client.hgetall(name)
    return found


def split(found: dict[bytes, Any]) -> tuple[dict[bytes, UserShard], dict[bytes, Any]]:
    """Hers, decoded, and everything else."""
    key = user_key(HER, SECRET_DEFAULT).hex().encode()
    hers = {name: UserShard.decode(data) for name, data in found.items() if key in name}
    return hers, {name: data for name, data in found.items() if key not in name}


def assert_erased(client: Redis, others: dict[bytes, Any], erased_at: int) -> None:
    hers, rest = split(shards(client))
    assert rest == others, "everybody else, and what items counted"
    assert hers
    assert {shard.erased_at for shard in hers.values()} == {erased_at}
    assert {shard.state.newest_at for shard in hers.values()} == {EMPTY_AT}
    assert all(shard.preferences_version is None for shard in hers.values())


def pages(world: ErasureWorld, at: int, *users: str) -> list[Any]:
    """What these users are shown at an instant; a minute's exposures take the place of what it had."""
    world.shop.clock.at = at
    shown = [world.page(user)["items"] for user in users]
    world.shop.clock.at = None
    world.shop.services.exposures.flush()
    return shown


def late_commit(world: ErasureWorld) -> None:
    """Her last event is folded by two at once; the one that read before her erasure commits after it."""
    world.act(preferences(HER))
    (record,) = [
        one
        for partition in range(world.shop.settings.partition_count)
        for one in world.shop.broker.read(partition, world.shop.positions.get(partition, -1), 10)
    ]

    def overtake() -> None:
        world.erase()
        world.fold()

    store = CommitsLate(world.state, overtake)
    processor = EventProcessor(
        "live-1", store=store, versions=[CURRENT_VERSION], blobs=world.shop.blobs, broker=world.shop.broker
    )
    processor.process([record])
    assert store.refused


def test_her_id_stands_nowhere_whatever_comes_afterwards(tmp_path: Path) -> None:
    data = tmp_path / "shop"
    with erasure_world(data, HER) as world:
        shop = world.shop
        earlier = shop.clock() - HOUR_MS
        world.act(preferences(HER))
        shop.broker.append([(HER, dead_letter(HER))])
        world.fold()
        pages(world, earlier - 30 * MINUTE_MS, HER, "crowd-1", HER + "2")
        world.night(shop.clock())
        shop.services.refresh()
        pages(world, earlier - 20 * MINUTE_MS, HER)

        # What is there before, so that finding nothing afterwards says something.
        assert {name.rsplit("/", name.count("/") - 1)[0] for name in files_with(data, NAMED)} == {
            "lake/days", "lake/history", "lake/sealed", "lake/exposures", "nightly/interactions", "nightly/candidates",
            "log/appendonlydir", "state/appendonlydir",
        }  # fmt: skip
        hers, others = split(shards(world.state))
        assert len(hers) == 2, "history and live stream"
        shown = pages(world, earlier, *OTHERS)
        rows = read_rows(shop.blobs).num_rows

        late_commit(world)
        (receipt_id,) = all_receipts(shop.blobs)
        shop.services.sealer.run()
        shop.services.ingest.process(world.delivered)  # delivered again by the broker
        shop.post(*world.sent)  # and sent again by her client
        world.fold()
        pages(world, earlier - 10 * MINUTE_MS, HER)  # what a worker held in memory, written late
        erased_at = erasure_instant(shop.blobs, receipt_id)
        assert_erased(world.state, others, erased_at)
        assert pages(world, earlier, *OTHERS) == shown
        parity = check_parity(shop.blobs, key_of=KEY_OF)
        assert int(parity.mismatches.sum()) == 0
        assert parity.skipped["its user was erased"] == 3

        world.night(erased_at + HOUR_MS)
        backfill_state(data, world.servers.state_url, SECRET_DEFAULT)
        assert_erased(world.state, others, erased_at)
        with (
            EmbeddedServer(data / "rebuilt", STATE_OPTIONS) as rebuilt,
            closing(connect(rebuilt.url, timeout_ms=5000)) as client,
        ):
            assert backfill_state(data, rebuilt.url, SECRET_DEFAULT) == 6
            assert_erased(client, others, erased_at)
            assert keys_with(client, NAMED) == []
        assert read_rows(shop.blobs).num_rows == rows + 3 + len(world.sent), "late, erased twice, sent again"
        assert HER not in {one.event.user_id for one in events_by_day(shop.blobs, key_of=KEY_OF)}
        parity = check_parity(shop.blobs, key_of=KEY_OF)
        assert int(parity.mismatches.sum()) == 0
        assert dict(parity.skipped) == {"gone: their users were erased": 3}
        assert parity.exposures == 2 + len(OTHERS)
        assert files_with(data, NAMED) == []
        assert keys_with(world.state, NAMED) == []
        assert keys_with(world.log, NAMED) == []
        receipt = read_receipt(shop.blobs, receipt_id)
        assert receipt is not None
        due = {name for name, line in receipt.stores.items() if line.done_at is None}
        assert due <= {"event_id_ring", "worker_memory"}, receipt.stores


def erasure_instant(blobs: FolderBlobStore, receipt_id: str) -> int:
    receipt = read_receipt(blobs, receipt_id)
    assert receipt is not None
    return receipt.erased_at


def test_a_night_that_began_before_publishes_nothing_of_her_and_one_that_knows_the_new_user_does(
    tmp_path: Path,
) -> None:
    key = user_key(HER, SECRET_DEFAULT)
    with erasure_world(tmp_path / "shop", HER) as world:
        shop = world.shop
        world.compact(shop.clock())
        build_interactions(world.data, KEY_OF)
        users = make_candidates(world.data)
        assert HER in {user for user, _ in user_records(world.data)}
        world.erase()  # acknowledged, and neither folded nor in the lake
        name = world.publish(users, shop.clock())
        assert shop.releases.nightly_records(name, [key]) == [None]
        assert sum(one is not None for one in records_of(world, name)) == users - 1
        check_usable(shop.releases, shop.blobs, name)
        receipt = read_receipt(shop.blobs, all_receipts(shop.blobs)[0])
        assert receipt is not None
        assert receipt.stores["coming_releases"].done_at is None, "this night was made with her"

        world.fold()
        world.state.delete(overlay_key(key))  # from here on the lake alone says it
        world.compact(shop.clock())
        name = world.publish(users, shop.clock())
        assert shop.releases.nightly_records(name, [key]) == [None], "the candidates are still the old ones"

        world.act(behaviour(HER, 7), behaviour(HER, 8))
        world.fold()
        name = world.night(shop.clock())
        assert {HER, HER + "2"} <= {user for user, _ in user_records(world.data)}
        (record,) = shop.releases.nightly_records(name, [key])
        assert record is not None
        assert decode_record(name, record).actions_count == 2, "what the new user did"
        receipt = read_receipt(shop.blobs, receipt.receipt)
        assert receipt is not None
        assert receipt.stores["coming_releases"].done_at is not None


def records_of(world: ErasureWorld, release_id: str) -> list[bytes | None]:
    keys = [user_key(user, SECRET_DEFAULT) for user, _ in user_records(world.data)]
    return world.shop.releases.nightly_records(release_id, keys)


def test_a_restored_copy_of_the_state_is_refilled_from_redacted_rows(world: Any) -> None:
    key_of = keyed_with("test secret")
    bodies = [encode_event(event(user=f"user {n % 4}", item=f"item {n % 3}", at=START_AT + n)) for n in range(40)]
    world.processor().process(world.publish(bodies[:10]))
    copy = world.copy_state()
    erasure = event("user_erased", user=None, item=None, at=START_AT + 40,
                    changes={"user_key": key_of("user 1"), "receipt": "ab" * 16})  # fmt: skip
    world.processor().process(world.publish([*bodies[10:], encode_event(erasure), bodies[3]]))
    before = world.shards()
    seal_partition("live-1", 0, store=world.store, blobs=world.blobs)
    assert compact(world.blobs, EventSource("live-1", (1,)), key_of=key_of).erasures == 1
    assert read_rows(world.blobs)["user_id"].null_count == 10 + 1
    world.restore_state(copy)
    world.processor().catch_up()
    hers = next(name for name in before if key_of("user 1") in name)
    after = world.shards()
    assert {name: data for name, data in after.items() if name != hers} == {
        name: data for name, data in before.items() if name != hers
    }
    shard = UserShard.decode(after[hers])
    assert (shard.erased_at, shard.state.newest_at) == (START_AT + 40, EMPTY_AT)
