"""One script commits a chunk whole or not at all; readers see it whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from shared.adapters.keys import USER_SHARD_TTL_MS, PartitionKeys, user_key
from shared.adapters.redis_connection import connect, eviction_policy
from shared.adapters.redis_scripts import COMMIT
from shared.adapters.redis_shards import MOST_FEED_ENTRIES, RedisShardReader
from shared.adapters.redis_state import RedisStateStore
from shared.errors import ConfigurationError, MarkMoved, StateUnavailable
from shared.events import EventSource
from shared.ports import LandingRow, LogWrite, Mark, PartitionCommit, Touched, UserWrite, Verdict, VersionWrite

SOURCE = "live-1"
SECRET = "test secret"
KEYS = PartitionKeys(SOURCE, 0)


@pytest.fixture
def store(state_client: Redis) -> RedisStateStore:
    return RedisStateStore(state_client, SECRET)


@pytest.fixture
def reader(state_client: Redis) -> RedisShardReader:
    return RedisShardReader(state_client, SECRET, "v")


def row(sequence: int, verdict: Verdict = Verdict.ACCEPTED, **more: Any) -> LandingRow:
    return LandingRow(SOURCE, 0, sequence, 1000 + sequence, verdict, b"body %d" % sequence, **more)


def chunk(
    first: int, last: int, before: Mark | None = None, *, item: int = 7, value: bytes = b"counters"
) -> PartitionCommit:
    """Sequences first..last; each touches user u, an item and a product."""
    if before is None and first > 0:
        before = Mark(first - 1, 1000 + first - 1)
    write = VersionWrite(before, {"u": UserWrite(b"shard %d" % last)}, {item: value}, [item, 8])
    log = LogWrite(before, [row(one) for one in range(first, last + 1)], {8: b"product %d" % last})
    return PartitionCommit(SOURCE, 0, Mark(last, 1000 + last), {"v": write}, log)


def everything(client: Redis) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.scan_iter()}


def test_a_commit_writes_everything_and_a_read_sees_it(store: RedisStateStore, state_client: Redis) -> None:
    store.commit(chunk(0, 2))
    state = store.read(SOURCE, 0, ["v", "w"], Touched(["u", "nobody"], [7, 9], [8, 9]))
    assert state.log_mark == state.versions["v"].mark == Mark(2, 1002)
    assert state.versions["v"].users == {"u": b"shard 2", "nobody": None}
    assert state.versions["v"].items == {7: b"counters", 9: None}
    assert state.products == {8: b"product 2", 9: None}
    assert state.versions["w"].mark is None
    assert store.landing_rows(SOURCE, 0, 1, 2) == [row(1), row(2)]
    shard = KEYS.user("v", user_key("u", SECRET))
    assert USER_SHARD_TTL_MS - 10_000 < state_client.pttl(shard) <= USER_SHARD_TTL_MS
    assert b"u" not in [key.split(b":")[-1] for key in state_client.scan_iter()], "keys name users by a keyed hash"


def test_what_must_outlive_idleness_gets_no_expiry(store: RedisStateStore, state_client: Redis) -> None:
    first = chunk(0, 0)
    store.commit(first)
    kept = replace(first.versions["v"], mark_before=Mark(0, 1000), users={"u": UserWrite(b"kept", expires=False)})
    store.commit(
        replace(first, mark_after=Mark(1, 1001), versions={"v": kept}, log=LogWrite(Mark(0, 1000), [row(1)], {}))
    )
    assert state_client.pttl(KEYS.user("v", user_key("u", SECRET))) == -1


@pytest.mark.parametrize(
    "broken",
    [
        chunk(0, 0),
        chunk(2, 2),
        chunk(1, 1, Mark(0, 999)),
        replace(chunk(1, 1), log=LogWrite(None, [row(1)], {})),
        replace(chunk(1, 1), versions={"v": replace(chunk(1, 1).versions["v"], mark_before=None)}),
    ],
    ids=["again", "ahead", "another instant", "the log's mark", "the version's mark"],
)
def test_a_chunk_folded_on_another_mark_is_refused_whole(
    store: RedisStateStore, state_client: Redis, broken: PartitionCommit
) -> None:
    store.commit(chunk(0, 0))
    before = everything(state_client)
    with pytest.raises(MarkMoved):
        store.commit(broken)
    assert everything(state_client) == before


ROLES: dict[str, Callable[[], str]] = {
    "log mark": lambda: KEYS.log_mark,
    "landing": lambda: KEYS.landing,
    "catalogue": lambda: KEYS.catalogue,
    "mark": lambda: KEYS.mark("v"),
    "items": lambda: KEYS.items("v"),
    "feed": lambda: KEYS.feed("v"),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("on", ["an empty state", "a chunk"])
def test_a_key_of_a_wrong_type_lets_nothing_be_half_written(
    store: RedisStateStore, state_client: Redis, role: str, on: str
) -> None:
    first = on == "a chunk"
    if first:
        store.commit(chunk(0, 0))
    name = ROLES[role]()
    state_client.delete(name)
    state_client.rpush(name, "in the way")
    before = everything(state_client)
    with pytest.raises(StateUnavailable, match="WRONGTYPE"):
        store.commit(chunk(1, 1) if first else chunk(0, 0))
    assert everything(state_client) == before


def test_a_users_key_of_a_wrong_type_is_found_before_anything_is_folded_on_it(
    store: RedisStateStore, state_client: Redis
) -> None:
    state_client.rpush(KEYS.user("v", user_key("u", SECRET)), "in the way")
    with pytest.raises(StateUnavailable, match="WRONGTYPE"):
        store.read(SOURCE, 0, ["v"], Touched(["nobody", "u"]))


@pytest.mark.parametrize("stream", ["landing", "feed"])
def test_a_stream_that_already_reaches_beyond_lets_nothing_be_half_written(
    store: RedisStateStore, state_client: Redis, stream: str
) -> None:
    store.commit(chunk(0, 0))
    state_client.xadd(ROLES[stream](), {"x": "y"}, id="900-0")
    before = everything(state_client)
    with pytest.raises(StateUnavailable, match="LOGAHEAD"):
        store.commit(chunk(1, 1))
    assert everything(state_client) == before


def test_a_full_server_refuses_the_chunk_whole(store: RedisStateStore, state_client: Redis) -> None:
    store.commit(chunk(0, 0))
    before = everything(state_client)
    try:
        state_client.config_set("maxmemory", 1)
        with pytest.raises(StateUnavailable, match="maxmemory"):
            store.commit(chunk(1, 1))
    finally:
        state_client.config_set("maxmemory", 0)
    assert everything(state_client) == before
    assert eviction_policy(state_client) == "noeviction"


def test_every_key_of_a_partition_lies_in_one_slot_and_is_declared(store: RedisStateStore, state_client: Redis) -> None:
    store.commit(chunk(0, 3))
    tag = f"{{{SOURCE}.0}}".encode()
    assert all(key.startswith(tag) for key in state_client.scan_iter())
    assert COMMIT.text.startswith("#!lua\n"), "only then does a cluster refuse keys that are not declared"


def test_a_version_that_lags_commits_without_the_log(store: RedisStateStore) -> None:
    store.commit(chunk(0, 5))
    late = VersionWrite(None, {"u": UserWrite(b"late")}, {7: b"late"}, [7])
    store.commit(PartitionCommit(SOURCE, 0, Mark(3, 1003), {"w": late}, None))
    state = store.read(SOURCE, 0, ["v", "w"], Touched(["u"], [7]))
    assert (state.log_mark, state.versions["v"].mark, state.versions["w"].mark) == (
        Mark(5, 1005), Mark(5, 1005), Mark(3, 1003),
    )  # fmt: skip
    assert state.versions["v"].users == {"u": b"shard 5"}
    assert state.versions["w"].users == {"u": b"late"}


def test_a_chunk_of_many_wide_rows_fits(store: RedisStateStore) -> None:
    users = {f"user {n}": UserWrite(bytes(5000)) for n in range(100)}
    items = {n: bytes(300) for n in range(100)}
    rows = [replace(row(n), body=bytes(32_000)) for n in range(100)]
    products = {n: bytes(30_000) for n in range(100)}
    write = VersionWrite(None, users, items, list(items))
    store.commit(PartitionCommit(SOURCE, 0, Mark(99, 1099), {"v": write}, LogWrite(None, rows, products)))
    state = store.read(SOURCE, 0, ["v"], Touched(list(users), list(items), list(products)))
    assert None not in state.versions["v"].users.values()
    assert state.products == products


def test_landing_rows_come_back_as_they_went_in_and_are_trimmed_commit_by_commit(store: RedisStateStore) -> None:
    rows = [
        row(0), row(1, Verdict.DUPLICATE), row(2, Verdict.DEAD, reason="why"),
        replace(row(3, Verdict.SKIPPED, reason="gone", last_sequence=9), body=b""), row(10),
    ]  # fmt: skip
    before: Mark | None = None
    for held in (rows[:2], rows[2:4], rows[4:]):
        end = held[-1].last_sequence or held[-1].sequence
        mark, write = Mark(end, 1000 + end), VersionWrite(before, {}, {}, [])
        store.commit(PartitionCommit(SOURCE, 0, mark, {"v": write}, LogWrite(before, held, {})))
        before = mark
    assert store.oldest_landing_rows(SOURCE, 0, 100) == rows
    assert store.landing_rows(SOURCE, 0, 5, 6) == [rows[3]]
    assert store.landing_rows(SOURCE, 0, 1, 3) == rows[1:4]
    assert store.landing_rows(SOURCE, 0, 11, 90) == []
    assert store.oldest_landing_rows(SOURCE, 0, 2) == rows[:2]
    assert store.oldest_landing_rows(SOURCE, 0, 3) == rows[:4], "a commit is not taken apart"
    store.trim_landing(SOURCE, 0, rows[3])
    assert store.oldest_landing_rows(SOURCE, 0, 100) == rows[4:]
    store.trim_landing(SOURCE, 0, rows[4])
    assert store.oldest_landing_rows(SOURCE, 0, 100) == []
    store.commit(
        PartitionCommit(
            SOURCE, 0, Mark(11, 1011), {"v": VersionWrite(before, {}, {}, [])}, LogWrite(before, [row(11)], {})
        )
    )
    assert store.oldest_landing_rows(SOURCE, 0, 100) == [row(11)]


def test_landing_is_read_through_many_commits(store: RedisStateStore) -> None:
    for first in range(0, 50, 2):
        store.commit(chunk(first, first + 1))
    assert store.landing_rows(SOURCE, 0, 3, 45) == [row(n) for n in range(3, 46)]
    assert store.landing_rows(SOURCE, 0, 3, 900) == [row(n) for n in range(3, 50)]
    assert store.oldest_landing_rows(SOURCE, 0, 41) == [row(n) for n in range(42)]


def test_a_load_is_refused_once_the_version_has_a_mark(store: RedisStateStore) -> None:
    store.load(SOURCE, 0, "v", users={"u": UserWrite(b"loaded")}, items={7: b"loaded"}, products={8: b"loaded"})
    store.load(SOURCE, 0, "v", users={"u": UserWrite(b"loaded again")})
    store.finish_load(SOURCE, 0, "v", Mark(41, 1041))
    state = store.read(SOURCE, 0, ["v"], Touched(["u"], [7], [8]))
    assert state.log_mark == state.versions["v"].mark == Mark(41, 1041)
    assert state.versions["v"].users == {"u": b"loaded again"}
    with pytest.raises(MarkMoved):
        store.load(SOURCE, 0, "v", users={"u": UserWrite(b"late")})
    with pytest.raises(MarkMoved):
        store.finish_load(SOURCE, 0, "v", Mark(50, 1050))
    store.load(SOURCE, 0, "w", products={8: b"from the lake"})
    assert store.read(SOURCE, 0, ["v"], Touched(products=[8])).products == {8: b"loaded"}, "the log's entry is newer"
    store.commit(chunk(42, 42, Mark(41, 1041)))


def test_a_reader_that_took_a_snapshot_and_follows_the_feed_holds_what_is_stored(
    store: RedisStateStore, reader: RedisShardReader
) -> None:
    assert reader.poll_feed(SOURCE, 0, 0) == replace(reader.poll_feed(SOURCE, 0, 0), mark=None, last_id=0, reload=False)
    store.commit(chunk(0, 4, item=1))
    snapshot = reader.snapshot_items(SOURCE, 0)
    assert (snapshot.mark, snapshot.last_id) == (Mark(4, 1004), 5)
    counters, entries, at = snapshot.counters, snapshot.entries, snapshot.last_id
    for first in (5, 7, 9):
        store.commit(chunk(first, first + 1, item=first, value=b"%d" % first))
        found = reader.poll_feed(SOURCE, 0, at)
        assert not found.reload
        assert found.mark == Mark(first + 1, 1001 + first)
        assert set(found.counters) == {first}
        counters, entries, at = counters | found.counters, entries | found.entries, found.last_id
    assert reader.poll_feed(SOURCE, 0, at).counters == {}
    whole = reader.snapshot_items(SOURCE, 0)
    assert (counters, entries, at) == (whole.counters, whole.entries, whole.last_id)
    assert counters == {1: b"counters", 5: b"5", 7: b"7", 9: b"9"}


def test_a_reader_is_told_to_reload_when_the_feed_is_no_proof(
    store: RedisStateStore, reader: RedisShardReader, state_client: Redis
) -> None:
    store.commit(chunk(0, 4))
    backup = everything(state_client)
    store.commit(chunk(5, 6))
    assert not reader.poll_feed(SOURCE, 0, 5).reload
    state_client.xtrim(KEYS.feed("v"), maxlen=1, approximate=False)
    assert not reader.poll_feed(SOURCE, 0, 5).reload
    assert reader.poll_feed(SOURCE, 0, 0).reload, "trimmed past the position held"
    state_client.flushall()
    for key, data in backup.items():
        state_client.restore(key, 0, data)
    assert reader.poll_feed(SOURCE, 0, 7).reload, "the state is older than what the reader holds"
    state_client.flushall()
    assert reader.poll_feed(SOURCE, 0, 7).reload
    store.finish_load(SOURCE, 0, "v", Mark(9, 1009))
    assert reader.poll_feed(SOURCE, 0, 7).reload, "a loaded state comes without feed"


def test_a_reader_far_behind_reloads(store: RedisStateStore, reader: RedisShardReader) -> None:
    for sequence in range(MOST_FEED_ENTRIES + 1):
        store.commit(chunk(sequence, sequence))
    assert reader.poll_feed(SOURCE, 0, 0).reload
    assert not reader.poll_feed(SOURCE, 0, 1).reload


def test_a_users_shards_and_other_commands_come_in_one_trip(
    store: RedisStateStore, reader: RedisShardReader, state_client: Redis
) -> None:
    store.commit(chunk(0, 0))
    state_client.hset("rel:r:u:0", "f", "record")
    sources = [EventSource(SOURCE, (1,)), EventSource("foreign", (3,), ours=False)]
    calls = state_client.info("stats")["total_commands_processed"]
    found = reader.read_user_shards("u", sources, [("HGET", "rel:r:u:0", "f")])
    assert [(one.source, one.partition) for one in found.shards] == [
        (SOURCE, 0), ("foreign", 0), ("foreign", 1), ("foreign", 2),
    ]  # fmt: skip
    assert [one.shard for one in found.shards] == [b"shard 0", None, None, None]
    assert found.extra == [b"record"]
    assert state_client.info("stats")["total_commands_processed"] - calls == 6


def test_a_client_never_sends_again_and_knows_its_addresses(tmp_path: Any) -> None:
    client = connect(f"unix://{tmp_path}/nothing.sock", timeout_ms=100)
    assert client.connection_pool.connection_kwargs["retry"].get_retries() == 0
    with pytest.raises(StateUnavailable, match="does not answer"):
        RedisStateStore(client, SECRET).read(SOURCE, 0, ["v"], Touched())
    assert connect("rediss://host:1").connection_pool.connection_class.__name__ == "SSLConnection"
    for url in ("host:1", "http://host", "", "redis://host:port"):
        with pytest.raises(ConfigurationError):
            connect(url)
