"""One request to an ASGI application, as uvicorn would make it."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp

from tests.contract.runtime_host import HOST_NAME, Answer, Request, sent_headers


def call_asgi(app: ASGIApp, request: Request) -> Answer:
    """The application's own answer."""
    return asyncio.run(_call(app, request))


async def _call(app: ASGIApp, request: Request) -> Answer:
    address = urlsplit(request.target)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "https",
        "path": unquote(address.path),
        "raw_path": address.path.encode("ascii"),
        "query_string": address.query.encode("ascii"),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in sent_headers(request).items()],
        "client": ("127.0.0.1", 40_000),
        "server": (HOST_NAME, 443),
    }
    sent: list[MutableMapping[str, Any]] = []
    left = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        return left.pop() if left else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    head, *body = sent
    headers = {name.decode().lower(): value.decode() for name, value in head["headers"]}
    return Answer(head["status"], headers, b"".join(part.get("body", b"") for part in body))
