"""A worker's life: composed once however many ask at once, and its last exposures written when it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions import bootstrap
from functions.bootstrap import Services
from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.ingest.exposures import read_exposures
from tests.integration.api_shop import open_shop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(servers: EmbeddedServers, tmp_path: Path) -> Iterator[dict[str, str]]:
    with open_shop(servers.state_url, servers.log_url, tmp_path):
        yield {"REDIS_URL": servers.state_url, "EVENT_LOG_URL": servers.log_url, "BLOB_URL": str(tmp_path)}


def test_concurrent_first_requests_compose_once(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found: list[Services] = []
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait(10)
        found.append(bootstrap.services())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(found) == 8
        assert len({id(one) for one in found}) == 1
        assert [release.release_id for release in found[0].releases.loaded] == ["r-test-1"]
    finally:
        bootstrap.close()
    again = bootstrap.services()
    try:
        assert again is not found[0]
    finally:
        bootstrap.close()


def test_sigterm_writes_the_exposures_and_then_ends_the_worker(environment: dict[str, str]) -> None:
    code = """
import asyncio, os, signal, time
import azure.functions as func
import function_app
from functions.asgi_forwarding import forward
request = func.HttpRequest("GET", "http://localhost/recommend/ann?limit=3", body=b"")
answer = asyncio.run(forward(function_app.api, request))
assert answer.status_code == 200, answer.get_body()
print("shown", flush=True)
time.sleep(60)
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"shown\n"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == -signal.SIGTERM
        worker.stdout.close()
    finally:
        worker.kill()
        worker.wait()
    recorded = list(read_exposures(FolderBlobStore(Path(environment["BLOB_URL"]))))
    assert [one["user_id"] for one in recorded] == ["ann"]
    assert len(recorded[0]["items"]) == 3
