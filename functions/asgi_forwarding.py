"""From an HTTP function of Azure to the ASGI application and back.

azure.functions' own AsgiMiddleware hands the path over as it stands in the address, so that an id with an escaped
character would not be found, polls for the end of each answer, and starts the application's lifespan once for each
concurrent first request. Here the path is decoded as uvicorn decodes it, and there is no lifespan: services are
composed under a lock when they are first needed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import azure.functions as func
from starlette.types import ASGIApp, Message


async def forward(api: ASGIApp, request: func.HttpRequest) -> func.HttpResponse:
    """One invocation: the application's answer to this request."""
    answer = _Answer(request.get_body())
    running = asyncio.ensure_future(api(_scope(request), answer.receive, answer.send))
    answered = asyncio.ensure_future(answer.ended.wait())
    # Whole is enough: an application that answered because a thread takes too long still waits for that thread.
    await asyncio.wait({running, answered}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        answered.cancel()
        running.result()
    else:
        _running.add(running)
        running.add_done_callback(_running.discard)
    return answer.response()


_running: Final[set[asyncio.Future[None]]] = set()
"""What has answered and is not done: the event loop itself holds tasks weakly."""


def _scope(request: func.HttpRequest) -> dict[str, Any]:
    address = urlsplit(request.url)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": address.scheme or "https",
        "path": unquote(address.path) or "/",
        "raw_path": address.path.encode(),
        "query_string": address.query.encode(),
        "root_path": "",
        "headers": [_header(name, value) for name, value in request.headers.items()],
        "client": None,
        "server": (address.hostname or "localhost", address.port or 443),
    }


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1", "replace")


class _Answer:
    """The body in one message, and the answer as it comes."""

    def __init__(self, body: bytes) -> None:
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._status = 500
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self.ended = asyncio.Event()

    async def receive(self) -> Message:
        if self._request is not None:
            message, self._request = self._request, None
            return message
        await self.ended.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                self.ended.set()

    def response(self) -> func.HttpResponse:
        body = b"".join(self._parts)
        media_type = self._headers.get("content-type", "text/plain")
        return func.HttpResponse(body, status_code=self._status, headers=self._headers, mimetype=media_type)
