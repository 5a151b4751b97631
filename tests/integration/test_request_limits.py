"""What a request may take, on the real application: how often, how large, how long; and what every answer carries."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
from fastapi.testclient import TestClient

from functions.api.app import create_app
from functions.asgi_forwarding import forward
from local.embedded import EmbeddedServers
from shared.log_lines import JsonLines
from tests.integration.api_shop import ApiShop, behaviour, open_shop, problem_of
from tests.integration.credentials import Credentials, bearer

TELL_ROUTES = """
import function_app
for function in function_app.app.get_functions():
    for binding in function.get_bindings():
        if binding.type == "httpTrigger":
            told = binding.get_dict_repr()
            print(*(method.value for method in told["methods"]), told["route"])
"""
UUID = "0f9a1b2c-0000-4000-8000-00000000beef"


@contextmanager
def opened(servers: EmbeddedServers, folder: Path, **settings: str) -> Iterator[ApiShop]:
    """A shop without a release, with the worker's services composed, as a server's start does."""
    with open_shop(servers.state_url, servers.log_url, folder / "shop", stocked=False, **settings) as shop:
        shop.app.state.worker.get()
        yield shop


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with opened(servers, tmp_path, MAX_HEADER_BYTES="4096", REQUEST_TIMEOUT_MS="60000") as found:
        yield found


@pytest.fixture
def hasty(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    """One that waits for nothing."""
    with opened(servers, tmp_path, READ_TIMEOUT_MS="300", REQUEST_TIMEOUT_MS="300") as found:
        yield found


async def call(
    app: Any, *parts: tuple[float, bytes], method: str = "POST", path: str = "/events", query: bytes = b""
) -> tuple[int, bytes]:
    """One request whose body comes in parts, each after a pause; status 0 when nothing was answered."""
    coming, sent = list(parts), []

    async def receive() -> Any:
        if not coming:
            await asyncio.sleep(30)
        pause_s, body = coming.pop(0)
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": [], "scheme": "http"}
    await asyncio.wait_for(app({**scope, "app": app, "client": None, "root_path": ""}, receive, send), 10)
    return sent[0]["status"] if sent else 0, b"".join(one.get("body", b"") for one in sent[1:])


def test_a_body_that_comes_too_slowly_is_answered_408(hasty: ApiShop) -> None:
    parts = [(0.05, b" ")] * 100
    status, body = asyncio.run(call(hasty.app, *parts))
    assert status == 408
    assert json.loads(body)["type"].endswith(":body_too_slow")
    status, _ = asyncio.run(call(hasty.app, (0.0, b"["), method="PUT", path="/items/sku-0001"))
    assert status == 408, "also where the framework reads the body"


def test_an_answer_that_takes_too_long_is_replaced_by_503(hasty: ApiShop, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(hasty.services.catalog, "popular", lambda *_: released.wait(20))

    async def first_answer() -> int:
        sent: asyncio.Queue[Any] = asyncio.Queue()
        scope = {"type": "http", "method": "GET", "path": "/popular", "query_string": b"", "headers": []}

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        request = asyncio.create_task(hasty.app(scope, receive, sent.put))
        status = int((await asyncio.wait_for(sent.get(), 10))["status"])
        assert not released.is_set(), "nobody waits for the thread"
        released.set()
        await request
        assert sent.qsize() == 1, "what the application said afterwards is dropped"
        return status

    assert asyncio.run(first_answer()) == 503


def test_on_azure_nobody_waits_for_the_thread_either(hasty: ApiShop, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(hasty.services.catalog, "popular", lambda *_: released.wait(20))
    request = func.HttpRequest("GET", "https://api.example/popular", body=b"")

    async def ask() -> float:
        began = time.monotonic()
        assert (await forward(hasty.app, request)).status_code == 503
        took_s = time.monotonic() - began
        released.set()
        return took_s

    assert asyncio.run(ask()) < 10


def test_on_azure_one_function_of_an_address_answers_its_preflights() -> None:
    environment = {**os.environ, "CORS_ORIGINS": "https://shop.example"}
    found = subprocess.run(
        [sys.executable, "-c", TELL_ROUTES], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    lines = [line.split() for line in found.stdout.splitlines()]
    routes = [(route, methods) for *methods, route in lines]
    taken = [(route, method) for route, methods in routes for method in methods]
    assert len(set(taken)) == len(taken), "two functions for one request"
    assert {route for route, method in taken if method == "OPTIONS"} == {route for route, _ in routes}
    assert len(routes) > len({route for route, _ in routes}), "addresses with several methods exist"


def test_headers_queries_and_bodies_have_bounds(shop: ApiShop) -> None:
    large = shop.client.get("/popular", headers={"X-Large": "y" * 5000})
    assert problem_of(large, 431)["type"].endswith(":headers_too_large")
    many = shop.client.get("/popular", headers=[(f"X-{number}", "y") for number in range(101)])
    assert problem_of(many, 431)["type"].endswith(":too_many_headers")
    status, body = asyncio.run(call(shop.app, method="GET", path="/popular", query=b"category=" + b"y" * 70_000))
    assert status == 414
    assert json.loads(body)["type"].endswith(":query_too_long")
    ids = ",".join(f"{number:0128d}" for number in range(500))
    assert shop.client.get(f"/recommend/{'u' * 128}?exclude={ids}").status_code == 503, "taken; there is no release"
    too_large = shop.client.put("/items/sku-0001", content=b"{" + b" " * 2_000_000 + b"}")
    assert problem_of(too_large, 413)["type"].endswith(":body_too_large")

    def parts() -> Iterator[bytes]:
        yield from [b" " * 65_536] * 20

    unannounced = shop.client.put("/items/sku-0001", content=parts(), headers={"Content-Type": "application/json"})
    assert problem_of(unannounced, 413)["type"].endswith(":body_too_large"), "also where the framework reads the body"


def test_one_address_is_slowed_down_and_another_is_not(servers: EmbeddedServers, tmp_path: Path) -> None:
    with opened(servers, tmp_path, RATE_PER_ADDRESS="30", TRUSTED_PROXIES="1") as shop:
        now_s = [1000.0]
        shop.services.admission._seconds = lambda: now_s[0]

        def asked_from(address: str, path: str = "/popular") -> Any:
            return shop.client.get(path, headers={"X-Forwarded-For": f"6.6.6.6, {address}"})

        answers = [asked_from("192.0.2.1") for _ in range(7)]
        assert [one.status_code for one in answers] == [503] * 5 + [429] * 2
        assert [one.headers["ratelimit"] for one in answers[:2]] == ['"address";r=4', '"address";r=3']
        refused = answers[-1]
        assert problem_of(refused, 429)["type"].endswith(":too_many_requests")
        assert refused.headers["retry-after"] == "2"
        assert refused.headers["ratelimit-policy"] == '"address";q=5;w=10'
        assert "192.0.2.1" not in refused.text
        assert asked_from("192.0.2.2").status_code == 503
        assert asked_from("192.0.2.1", "/nothing").status_code == 429, "guessing addresses counts too"
        for path in ("/health/live", "/health/ready"):
            assert asked_from("192.0.2.1", path).status_code != 429
        now_s[0] += 2
        assert asked_from("192.0.2.1").status_code == 503, "waiting as long as Retry-After said is enough"
        assert asked_from("192.0.2.1").status_code == 429
        assert 'route="none",status="429"' in shop.services.metrics.text().decode()


def test_a_key_has_a_bucket_of_its_own_wherever_it_calls_from(servers: EmbeddedServers, tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    settings = {**credentials.settings, "RATE_PER_KEY": "60", "RATE_PER_ADDRESS": "6"}
    with opened(servers, tmp_path, **settings) as shop:
        shop.services.admission._seconds = lambda: 1000.0
        statuses = [shop.client.get("/popular", headers=credentials.service).status_code for _ in range(12)]
        assert statuses == [503] * 10 + [429] * 2
        answer = shop.client.get("/metrics", headers=bearer(credentials.operator_key))
        assert answer.status_code == 200
        assert answer.headers["ratelimit"] == '"key";r=9'
        wrong = {"X-API-Key": credentials.operator_key + "x"}
        assert [shop.client.get("/metrics", headers=wrong).status_code for _ in range(3)] == [401, 429, 429]


def test_every_answer_has_an_id_and_the_headers_that_protect_it(shop: ApiShop) -> None:
    for method, path in (
        ("GET", "/health/live"),
        ("GET", "/nothing"),
        ("DELETE", "/events"),
        ("GET", "/popular?limit=0"),
        ("POST", "/events"),
        ("GET", "/docs"),
    ):
        answer = shop.client.request(method, path, headers={"X-Request-ID": UUID})
        assert answer.headers["x-request-id"] == UUID
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "strict-transport-security" not in answer.headers
        if answer.status_code >= 400:
            assert answer.json()["request_id"] == UUID
            assert answer.headers["cache-control"] == "no-store"
    made = {shop.client.get("/health/live").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for unsafe in ("ann@example.com", "user-0004228", "a" * 65, "0" * 15, "0" * 20 + "\xff", ""):
        given = shop.client.get("/health/live", headers={"X-Request-ID": unsafe.encode("latin-1")})
        assert given.headers["x-request-id"] not in {unsafe, ""}
    safe = TestClient(shop.app, base_url="https://shop.example")
    assert "max-age" in safe.get("/health/live").headers["strict-transport-security"]


def test_a_fault_that_quotes_the_user_is_logged_without_her(
    shop: ApiShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("user-ann-brown-1987 cannot be read")

    for service, name in ((shop.services.recommender, "recommend"), (shop.services.profiles, "profile")):
        monkeypatch.setattr(service, name, fail)
    caplog.set_level("INFO", logger="functions")
    for path in ("/recommend/user-ann-brown-1987?limit=3", "/user_profile/user-ann-brown-1987"):
        answer = shop.client.get(path, headers={"X-Request-ID": UUID})
        assert "cannot be read" not in json.dumps(problem_of(answer, 500)["detail"])
    written = [JsonLines().format(record) for record in caplog.records if record.name.startswith("functions")]
    assert len(written) == 4, "a stack trace and a request line each"
    assert "brown" not in "".join(written)
    assert "ValueError" in written[0]


def test_what_is_for_one_caller_is_kept_by_no_cache(servers: EmbeddedServers, tmp_path: Path) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as shop:
        for path in ("/recommend/ann", "/user_profile/ann", "/popular?user_id=ann", "/metrics"):
            assert shop.client.get(path).headers["cache-control"] == "no-store", path
        for path in ("/popular", "/items/sku-0001", "/health/live"):
            assert "cache-control" not in shop.client.get(path).headers, path


def test_a_page_of_an_allowed_origin_may_do_all_there_is_and_read_refusals(shop: ApiShop) -> None:
    app = create_app(lambda: shop.services, lambda: None, ("https://shop.example",))
    app.state.worker.get()
    client = TestClient(app)
    origin = {"Origin": "https://shop.example"}
    asked = {"Access-Control-Request-Headers": "authorization, content-type, x-request-id, idempotency-key"}
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = client.options("/popular", headers={**origin, **asked, "Access-Control-Request-Method": method})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-request-id"]
    refused = client.get("/popular", headers={**origin, "X-Large": "y" * 5000})
    assert refused.status_code == 431
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"
    exposed = refused.headers["access-control-expose-headers"]
    assert {"X-Request-ID", "Retry-After"} <= set(exposed.split(", "))
    foreign = client.options(
        "/popular", headers={"Origin": "https://evil.example", **asked, "Access-Control-Request-Method": "GET"}
    )
    assert "access-control-allow-origin" not in foreign.headers
    assert client.post("/events", json=[behaviour("ann", 1)], headers=origin).status_code == 202
