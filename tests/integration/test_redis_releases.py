"""The allocation moves by compare-and-set; lists live in hashes of about 64 and expire when retired."""

from __future__ import annotations

import random

import pytest
from redis import Redis

from shared.adapters.keys import user_key
from shared.adapters.redis_connection import connect
from shared.adapters.redis_releases import RedisReleaseStore, item_list_command, nightly_command
from shared.errors import InfrastructureFault, MarkMoved
from shared.ports import Allocation


@pytest.fixture
def store(state_client: Redis) -> RedisReleaseStore:
    return RedisReleaseStore(state_client)


def allocation(version: int, release: str = "r1") -> Allocation:
    return Allocation(version, "salt", ((release, 0.9), ("r0", 0.1)))


def test_the_allocation_takes_only_the_next_version(store: RedisReleaseStore) -> None:
    assert store.allocation() is None
    for wrong in (0, 2):
        with pytest.raises(MarkMoved):
            store.set_allocation(allocation(wrong))
    store.set_allocation(allocation(1))
    store.set_allocation(allocation(2, "r2"))
    for wrong in (1, 2, 4):
        with pytest.raises(MarkMoved):
            store.set_allocation(allocation(wrong, "r9"))
    assert store.allocation() == allocation(2, "r2")


def test_lists_come_back_under_their_release_and_no_other(store: RedisReleaseStore, state_client: Redis) -> None:
    users = {user_key(f"user {n}", "secret"): b"record %d" % n for n in range(300)}
    items = {n: b"list %d" % n for n in range(200)}
    for release in ("r1", "r2"):
        store.begin(release, user_count=300, item_count=200)
        store.write_lists(release, "nightly", {key: release.encode() + value for key, value in users.items()})
        store.write_lists(release, "similar", {key: release.encode() + value for key, value in items.items()})
    asked = [*random.Random(1).sample(sorted(users), 50), b"x" * 16]
    assert store.nightly_records("r2", asked) == [b"r2" + users[key] if key in users else None for key in asked]
    assert store.similar_lists("r1", "similar", [0, 199, 200, 63, 64]) == [
        b"r1list 0", b"r1list 199", None, b"r1list 63", b"r1list 64",
    ]  # fmt: skip
    assert store.similar_lists("r1", "bought_together", [0]) == [None]
    assert store.nightly_records("r3", asked) == [None] * 51
    assert store.nightly_records("r1", []) == []
    sizes = [state_client.hlen(key) for key in state_client.keys("rel:r1:similar:*")]
    assert sorted(sizes) == [8, 64, 64, 64]
    assert len(state_client.keys("rel:r1:u:*")) == 5


def test_lists_ride_in_another_trip(store: RedisReleaseStore, state_client: Redis) -> None:
    user = user_key("u", "secret")
    store.begin("r1", user_count=1000, item_count=10)
    store.write_lists("r1", "nightly", {user: b"mine"})
    store.write_lists("r1", "bought_together", {3: b"list"})
    assert state_client.execute_command(*nightly_command("r1", store.user_buckets("r1"), user)) == b"mine"
    assert state_client.execute_command(*item_list_command("r1", "bought_together", 3)) == b"list"


def test_writing_again_changes_nothing_and_a_release_must_be_begun(
    store: RedisReleaseStore, state_client: Redis
) -> None:
    with pytest.raises(InfrastructureFault, match="not begun"):
        store.write_lists("r1", "nightly", {b"k" * 16: b"v"})
    for _ in range(2):
        store.begin("r1", user_count=1, item_count=1)
        store.write_lists("r1", "nightly", {b"k" * 16: b"v"})
    assert store.nightly_records("r1", [b"k" * 16]) == [b"v"]


def test_lists_expire_only_once_their_release_is_retired(store: RedisReleaseStore, state_client: Redis) -> None:
    for release in ("r1", "r2"):
        store.begin(release, user_count=100, item_count=100)
        store.write_lists(release, "nightly", {user_key(str(n), "s"): b"v" for n in range(100)})
        store.write_lists(release, "similar", dict.fromkeys(range(100), b"v"))
    assert all(state_client.pttl(key) == -1 for key in state_client.scan_iter())
    store.retire("r1", 60_000)
    assert all(0 < state_client.pttl(key) <= 60_000 for key in state_client.keys("rel:r1:*"))
    assert all(state_client.pttl(key) == -1 for key in state_client.keys("rel:r2:*"))
    store.keep("r1")
    assert all(state_client.pttl(key) == -1 for key in state_client.scan_iter())
    store.retire("nothing", 1)


def test_a_store_that_does_not_answer_says_so(tmp_path: object) -> None:
    store = RedisReleaseStore(connect(f"unix://{tmp_path}/nothing.sock", timeout_ms=100))
    for call in (
        store.allocation,
        lambda: store.nightly_records("r", [b"k"]),
        lambda: store.set_allocation(allocation(1)),
    ):
        with pytest.raises(InfrastructureFault, match="does not answer"):
            call()
