"""Two real servers for the whole session; every test finds them empty."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from local.embedded import EmbeddedServers
from shared.adapters.redis_connection import connect


@pytest.fixture(scope="session")
def session_servers() -> Iterator[EmbeddedServers]:
    folder = Path(tempfile.mkdtemp(prefix="recommndr-test-"))
    try:
        with EmbeddedServers(folder) as servers:
            yield servers
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def servers(session_servers: EmbeddedServers) -> EmbeddedServers:
    for url in (session_servers.state_url, session_servers.log_url):
        with connect(url, timeout_ms=5000) as client:
            client.flushall()
    return session_servers


@pytest.fixture
def state_client(servers: EmbeddedServers) -> Iterator[Redis]:
    with connect(servers.state_url, timeout_ms=5000) as client:
        yield client


@pytest.fixture
def log_client(servers: EmbeddedServers) -> Iterator[Redis]:
    with connect(servers.log_url, timeout_ms=5000) as client:
        yield client
