"""The online side on a server in cluster mode, where a script may touch nothing but the slot of its declared keys."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from batch.publish_release import publish_release
from functions.readiness import Readiness
from local.embedded import STATE_OPTIONS, EmbeddedServer, EmbeddedServers
from shared.adapters.activation import roll_back
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_backfill import HistorySources
from shared.adapters.redis_connection import connect
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_scripts import Script
from shared.adapters.redis_state import RedisStateStore
from shared.errors import StateUnavailable
from shared.ingest.lake import read_range
from shared.ports import Mark, Touched, UserWrite, Verdict
from tests.integration.api_shop import ApiShop, behaviour, ids, indexes, neighbours, open_shop
from tests.integration.night_outputs import USERS, write_night

SLOTS = 16384
PATIENCE_S = 20.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def cluster_node(folder: Path) -> EmbeddedServer:
    """A node needs a port besides its socket, and another for the bus."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    return EmbeddedServer(folder, (*STATE_OPTIONS, *options), port=free_port())


def wait_for_cluster(client: Redis, nodes: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        state: Any = client.execute_command("CLUSTER INFO")
        if (state["cluster_state"], state["cluster_size"]) == ("ok", str(nodes)):
            return
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedServer]:
    """One node that holds all slots."""
    folder = Path(tempfile.mkdtemp(prefix="recommndr-cluster-"))
    try:
        with cluster_node(folder) as node:
            with connect(node.url, timeout_ms=5000) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
                wait_for_cluster(client, 1)
            yield node
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client(cluster: EmbeddedServer) -> Iterator[Redis]:
    with connect(cluster.url, timeout_ms=5000) as opened:
        opened.flushall()
        yield opened


@pytest.fixture
def shop(client: Redis, cluster: EmbeddedServer, servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(cluster.url, servers.log_url, tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("slots", ["another slot", "two slots and none declared"])
def test_a_script_that_touches_what_it_did_not_declare_fails_here(client: Redis, slots: str) -> None:
    """Without `#!lua` the server lets it pass: that is why every script of ours begins with it."""
    body, keys = "redis.call('SET', KEYS[1], '1') redis.call('SET', 'undeclared', '1')", ["declared"]
    if slots != "another slot":
        body, keys = "redis.call('SET', 'a', '1') redis.call('SET', 'b', '1')", []
    with pytest.raises(ResponseError, match="same slot"):
        Script(f"#!lua\n{body}").run(client, keys, [])
    Script(body).run(client, keys, [])


def test_the_whole_online_side_runs_on_a_cluster(shop: ApiShop, client: Redis) -> None:
    clicked = 45
    before = shop.page("ada", limit=10)
    shop.click("ada", clicked)
    page = shop.page("ada", limit=10)
    assert page["fallback"] is None
    assert set(neighbours(clicked)) & set(indexes(page)), "the click must be in the page"
    assert ids(page) != ids(before)
    shop.click("ada", clicked)
    assert len(shop.get("/user_profile/ada")["recent_history"]) == 2
    assert shop.get("/popular", limit=3)["items"]
    assert shop.get(f"/similar_items/sku-{clicked:04d}", limit=3)["items"]


def test_dead_letters_and_sealing_work_on_a_cluster(shop: ApiShop, client: Redis) -> None:
    shop.broker.append([("bob", b"not an event")])
    shop.post(behaviour("bob", 3))
    shop.settle()
    assert shop.services.sealer.run() > 0
    source, count = shop.settings.event_source, shop.settings.partition_count
    rows = [row for one in range(count) for row in read_range(shop.blobs, source, one, 0, 10**9)]
    assert sum(row.verdict is Verdict.DEAD for row in rows) == 1
    store = RedisStateStore(client, shop.settings.user_key_secret)
    assert all(store.oldest_landing_rows(source, one, 10) == [] for one in range(count))
    assert all(check.ok for check in shop.services.readiness.checks())


def test_backfill_and_publishing_work_on_a_cluster(client: Redis, tmp_path: Path) -> None:
    history = HistorySources(client)
    store = RedisStateStore(client, "secret")
    for source in ("history-1", "history-2"):
        history.begin(source)
        users = {f"user-{number}": UserWrite(b"shard") for number in range(700)}
        store.load(source, 0, "v", users=users, items={1: b"counters", 2: b"counters"}, products={1: b"entry"})
        store.finish_load(source, 0, "v", Mark(9, 9))
    assert history.retire_all_but(["history-2"]) == ["history-1"]
    assert client.pttl("{history-1.0}:mark:v") > 0
    history.begin("history-1")
    assert store.marks("history-1", 0, "v") == (None, None)
    assert store.read("history-2", 0, ["v"], Touched(["user-1"], [1], [1])).versions["v"].users == {"user-1": b"shard"}

    blobs, releases = FolderBlobStore(tmp_path), RedisReleaseStore(client)
    for seed, name in enumerate(("20260101-aaaaaaaa", "20260102-bbbbbbbb")):
        write_night(tmp_path, name, seed)
        publish_release(tmp_path, blobs, releases, name, user_secret="secret", promote=lambda _: None)
    assert releases.published() == ["20260102-bbbbbbbb", "20260101-aaaaaaaa"]
    assert releases.count_lists("20260102-bbbbbbbb")["nightly"] == len(USERS)
    roll_back(releases, blobs, lambda _: None)
    allocation = releases.allocation()
    assert allocation is not None
    assert allocation.releases == (("20260101-aaaaaaaa", 1.0),)
    releases.retire("20260102-bbbbbbbb", 60_000)
    assert releases.with_lists() == {"20260101-aaaaaaaa": False, "20260102-bbbbbbbb": True}


_ARGUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"')


@contextmanager
def watched(client: Redis) -> Iterator[list[tuple[bool, list[bytes]]]]:
    """Every command the server ran meanwhile: whether a script called it, and its words."""
    seen: list[tuple[bool, list[bytes]]] = []
    connection = client.connection_pool.get_connection()
    connection.send_command("MONITOR")
    connection.read_response()

    def watch() -> None:
        while b'"end of watch"' not in (line := connection.read_response()):
            seen.append((b" lua] " in line, _ARGUMENT.findall(line)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        client.echo("end of watch")
        thread.join(PATIENCE_S)
        connection.disconnect()


def undeclared(seen: list[tuple[bool, list[bytes]]]) -> set[bytes]:
    """Keys that a script touched and its call did not name; in one slot not even a cluster refuses them."""
    declared: set[bytes] = set()
    found: set[bytes] = set()
    for by_script, words in seen:
        name = words[0].upper()
        if not by_script:
            declared = set(words[3 : 3 + int(words[2])]) if name in {b"EVAL", b"EVALSHA"} else set()
        elif name != b"TIME":
            found |= {words[2] if name == b"XINFO" else words[1]} - declared
    return found


def test_scripts_touch_nothing_but_what_they_declare(shop: ApiShop, client: Redis) -> None:
    with watched(client) as seen:
        shop.click("ada", 45)
        shop.page("ada", limit=3)
        shop.publish("r-test-2")
    called = {words[1] for by_script, words in seen if not by_script and words[0].upper() == b"EVALSHA"}
    assert len(called) == 4, "read, commit, feed and allocation"
    assert undeclared(seen) == set()
    with watched(client) as seen:
        Script("#!lua\nredis.call('GET', KEYS[1]) redis.call('GET', '{a}:2')").run(client, ["{a}:1"], [])
    assert undeclared(seen) == {b"{a}:2"}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[EmbeddedServer, EmbeddedServer]]:
    """Two nodes that hold half of the slots each."""
    folder = Path(tempfile.mkdtemp(prefix="recommndr-cluster-"))
    try:
        with ExitStack() as stack:
            first, second = (stack.enter_context(cluster_node(folder / name)) for name in "ab")
            clients = [stack.enter_context(connect(one.url, timeout_ms=5000)) for one in (first, second)]
            clients[0].execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS // 2 - 1)
            clients[1].execute_command("CLUSTER", "ADDSLOTSRANGE", SLOTS // 2, SLOTS - 1)
            address = [clients[1].config_get(name)[name] for name in ("port", "cluster-port")]
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", *address)
            for client in clients:
                wait_for_cluster(client, 2)
            yield first, second
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_of_several_nodes_is_refused_with_a_word_about_what_is_needed(
    pair: tuple[EmbeddedServer, EmbeddedServer], servers: EmbeddedServers, tmp_path: Path
) -> None:
    with connect(pair[0].url, timeout_ms=5000) as client:
        store = RedisStateStore(client, "secret")
        answers = []
        for partition in range(8):
            try:
                store.marks("live-1", partition, "v")
                answers.append("")
            except StateUnavailable as error:
                answers.append(str(error))
        moved = [text for text in answers if text]
        assert 0 < len(moved) < 8
        assert all("refused" in text for text in moved)
    with open_shop(pair[0].url, servers.log_url, tmp_path, stocked=False) as shop:
        readiness: Readiness = shop.services.readiness
        (check,) = [one for one in readiness.checks() if one.name == "feature_state"]
        assert not check.ok
        assert "2 nodes" in check.detail
        assert "Enterprise" in check.detail
