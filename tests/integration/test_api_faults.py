"""Servers that die, hang and come back, over real HTTP: nothing hangs or is lost silently, all recovers by itself."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from functions.pages.exposure_writer import MINUTE_MS
from local.embedded import EmbeddedServer, EmbeddedServers
from shared.errors import InfrastructureFault
from shared.features.definitions import STATE_VERSION
from shared.ingest.exposures import read_exposures
from tests.integration.api_shop import RELEASE, ApiShop, behaviour, indexes, neighbours, open_shop, problem_of

PATIENCE_S = 20.0
PROMPT_S = 5.0
"""Nothing may take as long as this; timeouts are a fraction of it."""


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[EmbeddedServers]:
    with EmbeddedServers(tmp_path / "servers") as servers:
        yield servers


@pytest.fixture
def shop(own_servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    urls, folder = (own_servers.state_url, own_servers.log_url), tmp_path / "blobs"
    with open_shop(*urls, folder, REDIS_TIMEOUT_MS="250", EVENT_LOG_TIMEOUT_MS="500", ITEM_POLL_MS="50") as opened:
        yield opened


@contextmanager
def served(shop: ApiShop) -> Iterator[httpx.Client]:
    """The application under uvicorn, with its background threads."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(shop.app, log_level="warning", lifespan="on"))
    shop.services.start()
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=address, timeout=PROMPT_S) as client:
        eventually(lambda: server.started)
        yield client
        server.should_exit = True
        thread.join(PATIENCE_S)
    listener.close()


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def state_server(servers: EmbeddedServers) -> EmbeddedServer:
    assert servers.state is not None
    return servers.state


def failed_checks(client: httpx.Client) -> set[str]:
    answer = client.get("/health/ready")
    return {check["name"] for check in answer.json()["checks"] if not check["ok"]}


def test_without_redis_pages_come_from_memory_and_all_recovers_by_itself(
    shop: ApiShop, own_servers: EmbeddedServers
) -> None:
    shop.click("alice", 100)
    with served(shop) as client:
        personal = client.get("/recommend/alice").json()
        assert personal["fallback"] is None
        assert failed_checks(client) == set()

        state_server(own_servers).kill()
        for _ in range(5):
            page = client.get("/recommend/alice")
            assert page.status_code == 200
            assert page.json()["fallback"] == {"cause": "state_unavailable"}
            assert len(page.json()["items"]) == 20
        assert client.get("/popular").status_code == 200
        assert client.get("/items/sku-0001").status_code == 200
        for path in ("/user_profile/alice", "/similar_items/sku-0001"):
            answer = client.get(path)
            problem_of(answer, 503)
            assert answer.headers["retry-after"]
        assert failed_checks(client) >= {"feature_state"}
        assert client.get("/health/live").status_code == 200
        assert client.post("/events", json=[behaviour("alice", 120)]).status_code == 202, "the log fails apart"

        state_server(own_servers).start()
        eventually(lambda: client.get("/recommend/alice").json()["fallback"] is None)
        eventually(lambda: not failed_checks(client))
        shop.pump()
        page = client.get("/recommend/alice").json()
        assert set(indexes(page)) & set(neighbours(120)), "what was posted meanwhile counts"


def test_without_the_broker_log_events_are_refused_until_it_is_back(
    shop: ApiShop, own_servers: EmbeddedServers
) -> None:
    with served(shop) as client:
        own_servers.log.kill()
        event = behaviour("bob", 60)
        for _ in range(3):
            answer = client.post("/events", json=[event])
            problem_of(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1
        problem_of(client.post("/events", json=[{"event_id": "x"}]), 422)
        assert failed_checks(client) == {"broker_log"}
        assert client.get("/recommend/bob").status_code == 200

        own_servers.log.start()
        eventually(lambda: client.post("/events", json=[event]).status_code == 202)
        eventually(lambda: not failed_checks(client))
        shop.pump()
        assert client.get("/user_profile/bob").json()["features"]["user_view_count_ever"] == 1


@pytest.mark.parametrize("which", ["state", "log"])
def test_a_server_that_hangs_makes_nobody_wait_twice(shop: ApiShop, own_servers: EmbeddedServers, which: str) -> None:
    """A stopped process accepts connections and never answers: the worst kind of fault."""
    server = state_server(own_servers) if which == "state" else own_servers.log
    pid = server.pid()
    assert pid is not None
    with served(shop) as client:
        assert client.get("/recommend/carol").status_code == 200
        os.kill(pid, signal.SIGSTOP)
        try:
            if which == "state":
                answers = [client.get("/recommend/carol") for _ in range(20)]
                assert {answer.status_code for answer in answers} == {200}
                assert {answer.json()["fallback"]["cause"] for answer in answers} == {"state_unavailable"}
                faults = shop.services.metrics.faults.labels("redis")._value.get()
            else:
                answers = [client.post("/events", json=[behaviour("carol", 1)]) for _ in range(20)]
                assert {answer.status_code for answer in answers} == {503}
                faults = shop.services.metrics.faults.labels("broker_log")._value.get()
            assert faults <= len(answers) // 2, "most requests must not have waited for a timeout of their own"
            assert failed_checks(client)
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: not failed_checks(client))
        eventually(lambda: client.get("/recommend/carol").json()["fallback"] == {"cause": "new_user"})
        eventually(lambda: client.post("/events", json=[behaviour("carol", 1)]).status_code == 202)


def test_a_server_that_forgets_shoppers_is_not_ready(shop: ApiShop) -> None:
    shop.releases._client.config_set("maxmemory-policy", "allkeys-lru")
    shop.services.follower.follow()
    answer = shop.client.get("/health/ready")
    assert "noeviction" in problem_of(answer, 503)["detail"]


def test_a_release_that_cannot_be_loaded_never_displaces_one_that_works(shop: ApiShop) -> None:
    watcher = shop.services.releases
    for release_id, field in (("r-bad-schema", "schema_digest"), ("r-bad-state", "state_version")):
        shop.publish(release_id, **{field: "00000000"})
        watcher.refresh()
        assert release_id in watcher.failures
        assert shop.page("dora")["release"] == RELEASE
        assert release_id in shop.client.get("/health/ready").text
    shop.publish("r-altered")
    shop.blobs.write("releases/r-altered/ranker.onnx", b"something else")
    watcher.refresh()
    assert "checksum" in watcher.failures["r-altered"]
    assert shop.page("dora")["release"] == RELEASE
    shop.publish("r-test-2")
    watcher.refresh()
    assert shop.page("dora")["release"] == "r-test-2"
    assert watcher.failures == {}


def test_items_are_reloaded_when_the_feed_no_longer_reaches_back(shop: ApiShop, own_servers: EmbeddedServers) -> None:
    client = shop.releases._client
    for partition in range(4):
        client.delete(f"{{live-1.{partition}}}:feed:{STATE_VERSION}")
    shop.post(*(behaviour(f"u-{number}", 55) for number in range(50)))
    shop.settle()
    assert shop.get("/popular", limit=1)["items"][0]["item_id"] == "sku-0055"


def test_exposures_wait_for_the_blob_store_and_what_is_lost_is_counted(shop: ApiShop) -> None:
    writer = shop.services.exposures
    shop.clock.at = 1_800_000_000_000 // MINUTE_MS * MINUTE_MS
    folder = shop.blobs.root / "lake"
    folder.write_text("a file where a folder should be")
    shop.page("erin")
    shop.clock.at += MINUTE_MS
    with pytest.raises(InfrastructureFault):
        writer.write_finished()
    folder.unlink()
    shop.page("erin")
    writer.write_finished()
    assert len(list(read_exposures(shop.blobs))) == 1, "the minute under way is not written yet"
    writer.flush()
    shop.page("erin")
    writer.flush()
    shop.clock.at += MINUTE_MS
    writer.write_finished()
    recorded = list(read_exposures(shop.blobs))
    assert [one["number"] for one in recorded] == [1, 2, 3]
    assert shop.services.metrics.exposures.labels("written")._value.get() == 3

    writer._max_bytes = 10
    shop.page("erin")
    assert shop.services.metrics.exposures.labels("lost")._value.get() == 1


def test_closing_writes_the_exposures_of_the_minute_under_way(shop: ApiShop) -> None:
    with served(shop) as client:
        shown = [client.get("/recommend/fay").json()["recommendation_id"] for _ in range(3)]
    assert [one["recommendation_id"] for one in read_exposures(shop.blobs)] == shown
