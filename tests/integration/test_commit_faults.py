"""Each command of the commit script fails in turn, and the answer is lost on its way: never half a chunk, never two."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.adapters.keys import PartitionKeys, user_key
from shared.adapters.redis_connection import connect
from shared.adapters.redis_scripts import COMMIT
from shared.adapters.redis_state import RedisStateStore
from shared.errors import MarkMoved, StateUnavailable
from shared.events import id_hash
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LandingRow, LogWrite, Mark, PartitionCommit, Touched, UserWrite, Verdict, VersionWrite

SOURCE = "live-1"
SECRET = "test secret"
KEYS = PartitionKeys(SOURCE, 0)
BEFORE = Mark(4, 1004)
CALLED = sorted(set(re.findall(r"redis\.call\('([A-Z]+)'", COMMIT.text)))
PERSON, PASSWORD = "limited", "limited"


def chunk(before: Mark | None = BEFORE) -> PartitionCommit:
    """Three rows, two versions, two users, two items, two products: every loop of the script turns twice or more."""
    first = 0 if before is None else before.sequence + 1
    rows = [LandingRow(SOURCE, 0, first + n, 1000 + first + n, Verdict.ACCEPTED, b"body %d" % n) for n in range(3)]
    users = {"ann": UserWrite(b"shard"), "bob": UserWrite(b"kept", expires=False)}
    write = VersionWrite(before, users, {7: b"counters %d" % first, 8: b"more"}, [7, 8])
    log = LogWrite(before, rows, {7: b"product %d" % first, 9: b"another"})
    return PartitionCommit(SOURCE, 0, Mark(first + 2, 1002 + first), {"v": write, "w": write}, log)


def everything(client: Redis) -> dict[bytes, Any]:
    return {key: (client.dump(key), client.pttl(key) < 0) for key in client.scan_iter()}


@pytest.fixture
def store(state_client: Redis) -> RedisStateStore:
    """A partition that stands at `BEFORE`, so that a half-written chunk would be seen in every kind of key."""
    made = RedisStateStore(state_client, SECRET)
    early = chunk(None)
    made.commit(early)
    middle = chunk(early.mark_after)
    assert middle.log is not None
    rows = middle.log.rows[:2]
    made.commit(replace(middle, mark_after=BEFORE, log=replace(middle.log, rows=rows)))
    return made


@contextmanager
def limited(client: Redis, url: str, *rules: str) -> Iterator[RedisStateStore]:
    """The store through a user of the server who may do everything but what `rules` take away."""
    client.execute_command("ACL", "SETUSER", PERSON, "on", f">{PASSWORD}", "~*", "&*", "+@all", *rules)
    try:
        with connect(url.replace("unix://", f"unix://{PERSON}:{PASSWORD}@"), timeout_ms=5000) as person:
            yield RedisStateStore(person, SECRET)
    finally:
        client.execute_command("ACL", "DELUSER", PERSON)


def refused_whole(client: Redis, store: RedisStateStore, said: str, offered: PartitionCommit | None = None) -> None:
    before = everything(client)
    assert len(before) >= len(ROLES) - 1
    with pytest.raises(StateUnavailable, match=said):
        store.commit(offered or chunk())
    assert everything(client) == before


def test_the_script_calls_these_commands() -> None:
    assert CALLED == ["GET", "HSET", "SET", "TIME", "TYPE", "XADD", "XINFO"]


@pytest.mark.parametrize("command", CALLED)
def test_a_command_that_is_forbidden_lets_nothing_be_half_written(
    store: RedisStateStore, state_client: Redis, servers: Any, command: str
) -> None:
    with limited(state_client, servers.state_url, f"-{command.lower()}") as person:
        refused_whole(state_client, person, "permission|may not call")
    store.commit(chunk())


def test_without_its_check_phase_the_script_would_leave_half_a_chunk(
    store: RedisStateStore, state_client: Redis, servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the tests around this one can fail."""
    unchecked = type(COMMIT)(COMMIT.text.replace("not redis.acl_check_cmd(...)", "false"))
    assert unchecked.text != COMMIT.text
    monkeypatch.setattr("shared.adapters.redis_state.COMMIT", unchecked)
    before = everything(state_client)
    with limited(state_client, servers.state_url, "-xadd") as person, pytest.raises(StateUnavailable):
        person.commit(chunk())
    assert everything(state_client) != before


ROLES = {
    "log mark": KEYS.log_mark,
    "landing": KEYS.landing,
    "catalogue": KEYS.catalogue,
    "mark of v": KEYS.mark("v"),
    "mark of w": KEYS.mark("w"),
    "items of v": KEYS.items("v"),
    "items of w": KEYS.items("w"),
    "feed of v": KEYS.feed("v"),
    "feed of w": KEYS.feed("w"),
    "ann of v": KEYS.user("v", user_key("ann", SECRET)),
    "ann of w": KEYS.user("w", user_key("ann", SECRET)),
    "bob of v": KEYS.user("v", user_key("bob", SECRET)),
    "bob of w": KEYS.user("w", user_key("bob", SECRET)),
}


@pytest.mark.parametrize("role", ROLES)
def test_a_key_that_is_forbidden_or_of_another_type_lets_nothing_be_half_written(
    store: RedisStateStore, state_client: Redis, servers: Any, role: str
) -> None:
    name = ROLES[role]
    others = [f"~{other}" for other in ROLES.values() if other != name]
    with limited(state_client, servers.state_url, "resetkeys", *others) as person:
        refused_whole(state_client, person, "permission|may not call")
    if name.startswith((KEYS.user("v", b""), KEYS.user("w", b""))):
        return  # SET fails on no type; the read before it does
    state_client.delete(name)
    state_client.zadd(name, {"in the way": 1})
    refused_whole(state_client, store, "WRONGTYPE")


@pytest.mark.parametrize("role", ["landing", "feed of v", "feed of w"])
def test_a_stream_that_is_ahead_lets_nothing_be_half_written(
    store: RedisStateStore, state_client: Redis, role: str
) -> None:
    state_client.xadd(ROLES[role], {"x": "y"}, id="8-0")
    refused_whole(state_client, store, "LOGAHEAD")


def test_rows_out_of_order_let_nothing_be_half_written(store: RedisStateStore, state_client: Redis) -> None:
    offered = chunk()
    assert offered.log is not None
    first, second, third = offered.log.rows
    for rows in ([first, third, second], [first, first, third]):
        refused_whole(state_client, store, "DISORDER", replace(offered, log=replace(offered.log, rows=rows)))


@pytest.mark.parametrize("lost", ["an argument", "a key"])
def test_arguments_that_do_not_fit_together_let_nothing_be_half_written(
    store: RedisStateStore, state_client: Redis, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    class Losing:
        def run(self, client: Redis, keys: list[str], arguments: list[Any]) -> object:
            keys, arguments = (keys, arguments[:-1]) if lost == "an argument" else (keys[:-1], arguments)
            return COMMIT.run(client, keys, arguments)

    monkeypatch.setattr("shared.adapters.redis_state.COMMIT", Losing())
    refused_whole(state_client, store, "MALFORMED")


@pytest.mark.parametrize("role", ["log mark", "mark of v", "mark of w"])
@pytest.mark.parametrize("held", ["4:1005", "5:1005", "", None])
def test_a_mark_that_moved_lets_nothing_be_half_written(
    store: RedisStateStore, state_client: Redis, role: str, held: str | None
) -> None:
    if held is None:
        state_client.delete(ROLES[role])
    else:
        state_client.set(ROLES[role], held)
    before = everything(state_client)
    with pytest.raises(MarkMoved):
        store.commit(chunk())
    assert everything(state_client) == before


@pytest.mark.parametrize(
    ("setting", "value", "usual"),
    [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0"), ("replicaof", "127.0.0.1 1", "no one")],
)
def test_what_the_server_refuses_it_refuses_before_the_first_write(
    store: RedisStateStore, state_client: Redis, setting: str, value: str, usual: str
) -> None:
    def put(words: str) -> None:
        if setting == "replicaof":
            state_client.execute_command("REPLICAOF", *words.split())
        else:
            state_client.config_set(setting, words)

    put(value)
    try:
        refused_whole(state_client, store, "maxmemory|replica")
    finally:
        put(usual)
    store.commit(chunk())


def test_memory_that_runs_out_in_the_middle_of_the_script_does_not_stop_it(
    store: RedisStateStore, state_client: Redis
) -> None:
    """The server looks at its memory when a script begins, and not again: whole or not at all."""
    offered = chunk()
    assert offered.log is not None
    rows = [replace(row, body=bytes(4 << 20)) for row in offered.log.rows]
    wide = replace(offered, log=replace(offered.log, rows=rows))
    used = state_client.info("memory")["used_memory"]
    try:
        state_client.config_set("maxmemory", used + (6 << 20))  # less than the request's 12 MiB
        refused_whole(state_client, store, "maxmemory", wide)
        state_client.config_set("maxmemory", used + (26 << 20))  # enough for the request, not for what it writes beside
        store.commit(wide)
    finally:
        state_client.config_set("maxmemory", 0)
    assert len(store.oldest_landing_rows(SOURCE, 0, 10)) == 8


class Thief:
    """Stands between a client and the server; steals the answer to the next commit it sees, after it was executed."""

    def __init__(self, folder: Path, server_url: str) -> None:
        self.path = folder / "proxy.sock"
        self.armed = False
        self.stolen = 0
        self._stealing: socket.socket | None = None
        self._server = server_url.removeprefix("unix://")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            for one in (self._forward, self._answer):
                threading.Thread(target=one, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while request := client.recv(1 << 20):
                if self.armed and COMMIT.digest.encode() in request:
                    self.armed, self._stealing = False, client
                server.sendall(request)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, suppress(OSError):
            while answer := server.recv(1 << 20):
                if self._stealing is client:
                    self.stolen, self._stealing = self.stolen + 1, None
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(answer)


@pytest.fixture
def thief(servers: Any, tmp_path: Path) -> Iterator[Thief]:
    with closing(Thief(tmp_path, servers.state_url)) as made:
        yield made


def commits(client: Redis) -> int:
    calls: Any = client.info("commandstats")
    return int(calls.get("cmdstat_evalsha", {}).get("calls", 0))


def test_a_commit_whose_answer_was_lost_is_not_sent_again(
    store: RedisStateStore, state_client: Redis, thief: Thief
) -> None:
    with connect(f"unix://{thief.path}", timeout_ms=2000) as client:
        through = RedisStateStore(client, SECRET)
        through.marks(SOURCE, 0, "v")
        thief.armed = True
        sent = commits(state_client)
        with pytest.raises(StateUnavailable, match="does not answer"):
            through.commit(chunk())
        assert (thief.stolen, commits(state_client) - sent) == (1, 1)
        assert through.marks(SOURCE, 0, "v") == (chunk().mark_after,) * 2, "it had been applied; the mark tells"


def test_a_client_that_sends_again_by_itself_would_call_an_applied_commit_refused(
    store: RedisStateStore, state_client: Redis, thief: Thief
) -> None:
    """That the test above can fail: what redis-py does unless it is told not to."""
    with Redis(unix_socket_path=str(thief.path), protocol=2, retry=Retry(NoBackoff(), 3)) as client:
        through = RedisStateStore(client, SECRET)
        through.marks(SOURCE, 0, "v")
        thief.armed = True
        sent = commits(state_client)
        with pytest.raises(MarkMoved):
            through.commit(chunk())
        assert commits(state_client) - sent == 2


def test_a_processor_whose_commits_answer_is_lost_counts_every_event_once(
    world: Any, bodies: Callable[[int, int], list[bytes]], thief: Thief
) -> None:
    records = world.publish(bodies(350, 21))
    world.processor().process(records)
    shards, landing = world.shards(), world.landing()
    world.client.flushall()
    with connect(f"unix://{thief.path}", timeout_ms=2000) as client:
        processor = world.processor(RedisStateStore(client, SECRET))
        processor.process(records[:120])
        thief.armed = True
        with pytest.raises(StateUnavailable):
            processor.process(records[120:])
        processor.process(records[120:])
    assert thief.stolen == 1
    assert (world.shards(), world.landing()) == (shards, landing)
    state = world.store.read(SOURCE, 0, [CURRENT_VERSION.name], Touched(items=[id_hash("item-1")]))
    assert state.log_mark.sequence == 349
