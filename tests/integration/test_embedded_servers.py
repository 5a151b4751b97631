"""The two embedded servers start, fail apart, come back with what they promised, and end with their parent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.embedded import LOG_OPTIONS, LONGEST_SOCKET_PATH, STATE_OPTIONS, EmbeddedServer, EmbeddedServers, socket_path
from shared.adapters.redis_connection import connect
from shared.adapters.redis_log import RedisEventLog
from shared.errors import BrokerUnavailable, ConfigurationError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="recommndr-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def until(check: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return check()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_they_listen_on_sockets_alone_with_the_promised_settings(folder: Path) -> None:
    with EmbeddedServers(folder) as servers:
        wanted = {
            servers.state_url: {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"},
            servers.log_url: {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"},
        }
        for url, settings in wanted.items():
            assert url.startswith("unix://")
            with connect(url) as client:
                held = client.config_get("*")
                assert {name: held[name] for name in settings} == settings
                assert held["port"] == "0"
        assert servers.state is not None
        pids = [servers.state.pid(), servers.log.pid()]
    assert all(pid is not None and until(lambda pid=pid: not alive(pid)) for pid in pids)  # type: ignore[misc] # mypy cannot infer a lambda's default


def test_a_killed_log_comes_back_with_every_acknowledged_event(folder: Path) -> None:
    with EmbeddedServer(folder / "log", LOG_OPTIONS) as server, connect(server.url) as client:
        log = RedisEventLog(client, "live-1", 2)
        acknowledged = log.append([(f"user-{n}", b"body %d" % n) for n in range(200)])
        assert all(acknowledged)
        server.kill()
        with pytest.raises(BrokerUnavailable):
            log.append([("user-1", b"lost")])
        with pytest.raises(BrokerUnavailable):
            log.read(0, -1, 1)
        server.start()
        held = {(one.partition, one.sequence): one.body for part in (0, 1) for one in log.read(part, -1, 1000)}
        assert held == {(one.partition, one.sequence): b"body %d" % n for n, one in enumerate(acknowledged) if one}
        (after,) = log.append([("user-1", b"next")])
        assert after is not None
        assert after.sequence == max(sequence for part, sequence in held if part == after.partition) + 1


def test_the_state_survives_a_clean_stop(folder: Path) -> None:
    for expected in (None, b"1"):
        with EmbeddedServers(folder) as servers, connect(servers.state_url) as client:
            assert client.get("key") == expected
            client.set("key", "1")


def test_a_redis_url_starts_no_server_for_the_state(folder: Path) -> None:
    with EmbeddedServers(folder, redis_url="redis://elsewhere:1/0") as servers:
        assert servers.state_url == "redis://elsewhere:1/0"
        assert not (folder / "state").exists()
        with connect(servers.log_url) as client:
            assert client.ping()


def test_a_second_start_on_the_same_folder_uses_the_running_server(folder: Path) -> None:
    with EmbeddedServers(folder) as first:
        with EmbeddedServers(folder) as second:
            assert second.state is not None
            assert not second.state.owned
            assert second.state_url == first.state_url
        with connect(first.state_url) as client:
            assert client.ping(), "who did not start it does not stop it"


def test_a_stale_pid_file_and_socket_are_no_obstacle_and_nobody_else_is_killed(folder: Path) -> None:
    server = EmbeddedServer(folder / "state", STATE_OPTIONS)
    server.start()
    server.kill()
    assert (server.folder / "server.sock").exists(), "a killed server leaves its socket"
    (server.folder / "server.pid").write_text(str(os.getpid()))
    server.start()
    with connect(server.url) as client:
        assert client.ping()
    server.stop()


def test_a_long_path_gets_a_short_socket(folder: Path) -> None:
    deep = folder / ("d" * 90) / ("e" * 90)
    link = socket_path(deep).parent
    try:
        with EmbeddedServers(deep) as servers, connect(servers.state_url) as client:
            assert len(servers.state_url.removeprefix("unix://")) <= LONGEST_SOCKET_PATH
            assert client.ping()
            assert servers.state is not None
            (servers.state.folder / "server.sock").lstat()
            shorts = [socket_path(server.folder).parent for server in (servers.state, servers.log)]
            assert len(set(shorts)) == 2
    finally:
        for short in {link, *shorts}:
            short.unlink(missing_ok=True)


def test_a_short_path_that_is_taken_is_refused(folder: Path) -> None:
    deep = folder / ("d" * 120)
    link = socket_path(deep).parent
    link.unlink()
    link.mkdir()
    try:
        with pytest.raises(ConfigurationError, match="remove it"):
            socket_path(deep)
    finally:
        link.rmdir()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(folder: Path) -> None:
    server = EmbeddedServer(folder / "state", ("--appendonly", "perhaps"))
    with pytest.raises(ConfigurationError, match="ended at once"):
        server.start()
    damaged = EmbeddedServer(folder / "log", LOG_OPTIONS)
    (folder / "log").mkdir()
    (folder / "log" / "appendonlydir").write_text("not a folder")
    with pytest.raises(ConfigurationError, match=r"server\.log"):
        damaged.start()


def test_the_servers_end_with_a_parent_that_is_killed(folder: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from local.embedded import EmbeddedServers\n"
        "servers = EmbeddedServers(Path(sys.argv[1])); servers.start(); print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        pids = [int((folder / name / "server.pid").read_text()) for name in ("state", "log")]
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
    assert until(lambda: not any(alive(pid) for pid in pids))


def test_sequences_are_contiguous_and_instants_never_fall(folder: Path) -> None:
    with EmbeddedServer(folder / "log", LOG_OPTIONS) as server, connect(server.url) as client:
        log = RedisEventLog(client, "live-1", 1)
        assert (log.last_sequence(0), log.first_sequence(0), log.read(0, -1, 9)) == (None, 0, [])
        log.append([("k", b"a")])
        client.set("{live-1.0}:clock", 4_000_000_000_000)  # the clock was ahead once
        log.append([("k", b"b"), ("k", b"c")])
        records = log.read(0, -1, 9)
        assert [one.sequence for one in records] == [0, 1, 2]
        assert [one.enqueued_at for one in records][1:] == [4_000_000_000_000] * 2
        assert [one.body for one in log.read(0, 0, 1)] == [b"b"]
        log.trim_below(0, 2)
        assert (log.first_sequence(0), [one.sequence for one in log.read(0, -1, 9)]) == (2, [2])
        log.trim_below(0, 3)
        assert (log.first_sequence(0), log.last_sequence(0)) == (3, 2)
        (appended,) = log.append([("k", b"d")])
        assert appended is not None
        assert appended.sequence == 3
        assert log.append([]) == []


def test_an_append_that_one_partition_refuses_says_which_events(folder: Path) -> None:
    with EmbeddedServer(folder / "log", LOG_OPTIONS) as server, connect(server.url) as client:
        log = RedisEventLog(client, "live-1", 2)
        events = [(f"user-{n}", b"%d" % n) for n in range(10)]
        parts = [one.partition for one in log.append(events) if one]
        assert set(parts) == {0, 1}
        client.delete("{live-1.1}:log")
        client.set("{live-1.1}:log", "in the way")
        assert [one is None for one in log.append(events)] == [part == 1 for part in parts]
        with pytest.raises(BrokerUnavailable):
            log.append([events[parts.index(1)]])
