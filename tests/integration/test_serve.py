"""local.serve as a process: it serves an empty shop, folds what is posted, ends cleanly, and refuses a twin."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from local.embedded import EmbeddedServer, EmbeddedServers, socket_path
from local.instance_lock import InstanceLock, read_serving
from local.shopper import ShopApi, Shopper
from shared.adapters.keys import PartitionKeys
from shared.adapters.redis_connection import connect
from shared.errors import ConfigurationError
from shared.events import partition_of

START_TIMEOUT_S = 60
SERVED_ALONE = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "EVENT_LOG_URL"}}


def command(data: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "local.serve", "--data", str(data), *arguments]


def run_to_end(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(data, *arguments), capture_output=True, text=True, timeout=60, check=False, env=SERVED_ALONE
    )


def wait_for_address(process: subprocess.Popen[str], data: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        serving = read_serving(data)
        if serving is not None and serving.address:
            return serving.address
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail("the server did not announce its address")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        command(tmp_path, "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=SERVED_ALONE
    )
    try:
        yield process, wait_for_address(process, tmp_path)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def answers(url: str) -> bool:
    with connect(url, timeout_ms=1000) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def test_an_event_posted_is_folded_and_the_end_is_clean(
    served: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, address = served
    user = "user-1"
    keys = PartitionKeys("live-1", partition_of(user, 4))
    with ShopApi(address) as api:
        assert api.get("health/live")
        Shopper(api, user).act("item-1")
    state_url = f"unix://{socket_path(tmp_path / 'state')}"
    with connect(state_url) as client:
        assert wait_for_mark(client, keys)
    twin = run_to_end(tmp_path, "--port", "0")
    assert twin.returncode == 2
    assert f"process {process.pid} serves" in twin.stderr
    assert address in twin.stderr
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert address in output
    assert not answers(state_url)
    assert read_serving(tmp_path) is None


def wait_for_mark(client: Redis, keys: PartitionKeys) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if client.exists(keys.log_mark):
            return True
        time.sleep(0.02)
    return False


def test_the_next_start_finds_what_the_last_one_left(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path) as servers, connect(servers.log_url) as client:
        client.set("kept", 1)
    with EmbeddedServers(tmp_path) as servers, connect(servers.log_url) as client:
        assert client.get("kept") == b"1"


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_to_end(tmp_path, "--port", str(port))
    assert ended.returncode == 2
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert EmbeddedServer(tmp_path / "state", ()).pid() is None


def test_access_control_without_keys_is_said_in_one_line(tmp_path: Path) -> None:
    environment = SERVED_ALONE | {"AUTH": "on"}
    ended = subprocess.run(
        command(tmp_path, "--port", "0"), capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert ended.returncode == 2
    assert "SERVICE_KEYS" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert EmbeddedServer(tmp_path / "state", ()).pid() is None


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigurationError, match="taken"):
        InstanceLock(tmp_path / "taken")


def test_a_lock_is_free_again_when_its_holder_is_gone(tmp_path: Path) -> None:
    with InstanceLock(tmp_path) as lock:
        lock.announce("http://localhost:1")
        with pytest.raises(ConfigurationError, match=r"http://localhost:1"):
            InstanceLock(tmp_path)
    with InstanceLock(tmp_path):
        held = read_serving(tmp_path)
    assert held is not None
    assert held.pid == os.getpid()
