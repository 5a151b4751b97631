"""local.serve as a process under clients that mean harm, over real sockets; and what it logged about them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from local.instance_lock import read_serving
from tests.integration.api_shop import behaviour
from tests.integration.credentials import Credentials, bearer

READ_TIMEOUT_S = 1.0
SLOW_CLIENTS = 100
HEAD = b"Host: shop.example\r\n"
CLOSE = HEAD + b"Connection: close\r\n\r\n"
UPGRADE = b"Host: x\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"
USER = "user-ann-brown-1987"
ADDRESS = "198.51.100.77"
WORDS = "secret-wish"


@dataclass
class Served:
    address: str
    port: int
    credentials: Credentials
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def talk(self, request: bytes) -> bytes:
        """Everything that comes back until the server closes the connection."""
        with closing(self.connect()) as client:
            return self.read(client, request)

    def read(self, client: socket.socket, request: bytes = b"") -> bytes:
        parts = []
        try:
            client.sendall(request)
            while part := client.recv(65_536):
                parts.append(part)
        except ConnectionResetError:
            pass  # it was closed with bytes of ours unread
        return b"".join(parts)

    def lines(self) -> list[dict[str, Any]]:
        """What was logged; the rest of the output is the banner, which holds no JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hostile")
    credentials = Credentials(folder)
    environment = {
        **credentials.settings,
        "READ_TIMEOUT_MS": str(round(READ_TIMEOUT_S * 1000)),
        "TRUSTED_PROXIES": "1",
        "LOG_LEVEL": "DEBUG",
        "RATE_PER_ADDRESS": "600000",
    }
    alone = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "EVENT_LOG_URL"}}
    data, log = folder / "shop", folder / "serve.log"
    command = [sys.executable, "-m", "local.serve", "--data", str(data), "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=alone | environment)
    try:
        address = wait_for_address(process, data)
        port = urlsplit(address).port
        assert port is not None
        yield Served(address, port, credentials, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_for_address(process: subprocess.Popen[bytes], data: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        serving = read_serving(data)
        if serving is not None and serving.address:
            return serving.address
        assert process.poll() is None
        time.sleep(0.05)
    pytest.fail("the server did not announce its address")


def answers(raw: bytes) -> list[tuple[int, dict[str, Any] | None]]:
    """Status and problem of each answer; None where it is none."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        length = int(headers.get(b"content-length", b"0"))
        problem = bool(rest) and headers.get(b"content-type") == b"application/problem+json"
        found.append((int(lines[0].split()[1]), json.loads(rest[:length]) if problem and length else None))
        raw = rest[length:]
    return found


HOSTILE: dict[str, tuple[bytes, int]] = {
    "half a head": (b"GET /health/live HTTP/1.1\r\nHost: shop", 408),
    "a body that never comes": (b"POST /items:batch HTTP/1.1\r\n" + HEAD + b"Content-Length: 10\r\n\r\n[", 401),
    "bytes": (b"\x00\x01\x02\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40, 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a method nobody knows": (b"STEAL /health/live HTTP/1.1\r\n" + CLOSE, 400),
    "10,000 headers": (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + CLOSE, 431),
    "a header of 100 KB": (b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n" + CLOSE, 431),
    "a header without end": (b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000, 431),
    "an address of 80 KB": (b"GET /popular?x=" + b"y" * 80_000 + b" HTTP/1.1\r\n" + CLOSE, 414),
    "a path of 80 KB": (b"GET /" + b"y" * 80_000 + b" HTTP/1.1\r\n" + CLOSE, 414),
    "two lengths": (b"POST /events HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]", 400),
    "length and chunks": (
        b"POST /events HTTP/1.1\r\n" + HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
    ),
    "a web socket": (b"GET /health/live HTTP/1.1\r\n" + UPGRADE + b"Connection: Upgrade, close\r\n\r\n", 200),
    "TRACE": (b"TRACE /health/live HTTP/1.1\r\n" + CLOSE, 405),
    "CONNECT": (b"CONNECT evil.example:443 HTTP/1.1\r\n" + CLOSE, 400),
    "HEAD": (b"HEAD /popular HTTP/1.1\r\n" + CLOSE, 405),
    "OPTIONS": (b"OPTIONS /popular HTTP/1.1\r\n" + CLOSE, 405),
    "two slashes": (b"GET //health/live HTTP/1.1\r\n" + CLOSE, 404),
    "a slash at the end": (b"GET /items/ HTTP/1.1\r\n" + CLOSE, 404),
    "dots": (b"GET /../../etc/passwd HTTP/1.1\r\n" + CLOSE, 404),
    "escaped dots": (b"GET /items/%2e%2e%2f%2e%2e%2fetc%2fpasswd HTTP/1.1\r\n" + CLOSE, 404),
    "a null byte": (b"GET /items/a%00b HTTP/1.1\r\n" + CLOSE, 422),
    "a raw null byte": (b"GET /items/a\0b HTTP/1.1\r\n" + CLOSE, 400),
    "another's address": (b"GET http://evil.example/health/live HTTP/1.1\r\n" + CLOSE, 200),
    "two hosts": (b"GET /health/live HTTP/1.1\r\nHost: evil.example\r\n" + CLOSE, 200),
    "a folded header": (b"GET /health/live HTTP/1.1\r\nX: a\r\n b: c\r\n" + CLOSE, 400),
    "a line break in an id": (b"GET /health/live HTTP/1.1\r\nX-Request-ID: a\rSet-Cookie: b\r\n" + CLOSE, 400),
    "40,000 ampersands": (b"GET /popular?" + b"&" * 40_000 + b" HTTP/1.1\r\n" + CLOSE, 503),
}  # fmt: skip


def test_whatever_is_sent_is_answered_as_a_problem_and_in_time(served: Served) -> None:
    wrong = []
    for name, (request, status) in HOSTILE.items():
        began = time.monotonic()
        found = answers(served.talk(request))
        if [one[0] for one in found] != [status]:
            wrong.append((name, found))
        elif status >= 400 and name != "HEAD":
            problem = found[0][1]
            assert problem is not None, name
            assert problem["status"] == status
            assert problem["request_id"]
        assert time.monotonic() - began < 10 * READ_TIMEOUT_S, name
    assert not wrong
    with closing(served.connect()) as silent:
        assert served.read(silent) == b"", "a connection that brings nothing is closed"


def test_requests_sent_ahead_are_answered_in_order_or_not_at_all(served: Served) -> None:
    one = b"GET /health/live HTTP/1.1\r\n" + HEAD + b"\r\n"
    last = b"GET /health/live HTTP/1.1\r\n" + CLOSE
    assert [status for status, _ in answers(served.talk(one * 50 + last))] == [200] * 51
    assert len(answers(served.talk(one * 20_000))) < 20_000
    assert served.talk(one + b"\xff\xfe\r\n\r\n").startswith(b"HTTP/1.1 ")


def test_a_hundred_slow_clients_keep_nobody_waiting(served: Served) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(served.connect())) for _ in range(SLOW_CLIENTS)]
        key = f"X-API-Key: {served.credentials.service_key}\r\n".encode()
        for client in slow:
            client.sendall(b"POST /events HTTP/1.1\r\n" + HEAD + key + b"Content-Length: 100000\r\n\r\n[")
        assert answers(served.talk(b"GET /health/live HTTP/1.1\r\n" + CLOSE))[0][0] == 200
        assert {answers(served.read(client))[0][0] for client in slow} == {408}


def gave_up_on(client: socket.socket, within_s: float) -> bool:
    """Whether the server closes the connection, which the client only notices when it sends."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            client.sendall(b"G")
        except ConnectionError:
            return True
        time.sleep(0.1)
    return False


def test_clients_that_leave_or_never_read_are_no_fault_of_ours(served: Served) -> None:
    reset = struct.pack("ii", 1, 0)
    one = b"GET /openapi.json HTTP/1.1\r\n" + HEAD + b"\r\n"
    for _ in range(20):
        with closing(served.connect()) as client:
            client.sendall(one * 5)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    with closing(served.connect()) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(one * 90)
        assert gave_up_on(deaf, 10 * READ_TIMEOUT_S)
    assert answers(served.talk(b"GET /health/live HTTP/1.1\r\n" + CLOSE))[0][0] == 200
    assert not [line for line in served.lines() if line["level"] == "error"]


def test_the_log_is_json_and_names_nobody(served: Served) -> None:
    """All routes, with credentials of every kind, right and wrong; what must not appear is all over the requests."""
    credentials = served.credentials
    token, expired = credentials.token(USER), credentials.token(USER, exp=1, iat=None)
    kinds = [{}, bearer(token), bearer(expired), bearer("a.b.c"), credentials.service, credentials.operator]
    forwarded = {"X-Forwarded-For": f"6.6.6.6, {ADDRESS}", "User-Agent": f"{USER} browser", "Referer": f"/{USER}"}
    bodies: list[Any] = [[behaviour(USER, 1)], [{"event_id": USER, "user_id": USER}], {"title": USER}, USER]
    with httpx.Client(base_url=served.address, timeout=20) as client:
        document = client.get("/openapi.json").json()
        for path, operations in document["paths"].items():
            for method in operations:
                for number, headers in enumerate(kinds):
                    body = None if method == "get" else bodies[number % len(bodies)]
                    query = {"user_id": USER, "category": WORDS, "q": WORDS, "exclude": USER}
                    client.request(
                        method, re.sub(r"{\w+}", USER, path), params=query, json=body, headers={**headers, **forwarded}
                    )
        named = {**forwarded, "X-Request-ID": USER}
        for path in (f"/{USER}", f"/items/{USER}?q={WORDS}", f"/recommend/{USER}%00", f"//{USER}"):
            client.get(path, headers=named)
        client.post("/events", content=f'[{{"user_id": "{USER}"', headers={**named, **credentials.service})
    served.talk(f"GET /recommend/{USER} HTTP/1.1\r\nX-API-Key: {token}".encode())
    served.talk(f"GET /recommend/{USER} HTTX/1.1\r\nX-API-Key: {token}\r\n\r\n".encode())

    written = served.log.read_text()
    secrets = (USER, ADDRESS, "6.6.6.6", "127.0.0.1:", WORDS, token, expired, credentials.service_key)
    assert [one for one in (*secrets, credentials.operator_key, token.split(".")[1]) if one in written] == []
    lines = [line for line in served.lines() if line["message"] == "request"]
    routes = {line["route"] for line in lines}
    assert set(document["paths"]) <= routes
    assert {line.get("role") for line in lines} >= {"anonymous", "shopper", "service", "operator"}
    for line in lines:
        assert {"at", "level", "request_id", "route", "status"} <= set(line)
    ids = [line["request_id"] for line in lines]
    assert len(set(ids)) == len(ids)
