"""The outermost layer: bodies have a limit, nothing leaves without an answer, and every request is counted."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.api.problems import problem
from functions.api.worker import WorkerServices

log = logging.getLogger(__name__)

MOST_DRAINED_BYTES: Final = 64 * 1024**2
"""So much of a body that is too large is read and thrown away, so that its sender can read the answer."""


class BodyTooLarge(Exception):
    """The body has more bytes than the setting allows."""


class RequestBoundary:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, worker: WorkerServices) -> None:
        self._app = app
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; other scopes pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = _Answer(send)
        limit = self._worker.max_body_bytes
        body = _LimitedBody(receive, limit)
        try:
            _check_announced_length(scope, limit)
            await self._app(scope, body.receive, answer.send)
        except BodyTooLarge:
            await body.drain()
            text = f"the body has more than the {limit} bytes allowed; send fewer events in one request"
            await answer.replace(scope, problem(413, text, kind="body_too_large", instance=scope["path"]))
        except ClientDisconnect:
            # Nobody reads this answer; it is counted as the client's fault, and no alarm is due.
            text = "the connection ended before the request was whole"
            await answer.replace(scope, problem(400, text, kind="incomplete_request", instance=scope["path"]))
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            text = "this is our fault, not yours; it was logged"
            await answer.replace(scope, problem(500, text, kind="internal_error", instance=scope["path"]))
        finally:
            self._count(scope, answer.status, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        metrics = self._worker.metrics
        if metrics is not None:
            route = getattr(scope.get("route"), "path", "none")
            metrics.requests.labels(route, str(status)).inc()
            metrics.request_seconds.labels(route).observe(seconds)


class _Answer:
    """What is sent, with its status; a problem can take its place until the head has gone out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
        await self._send(message)

    async def replace(self, scope: Scope, response: Any) -> None:  # noqa: ANN401 - a Starlette response
        if not self.status:
            await response(scope, _no_body, self.send)


class _LimitedBody:
    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._bytes = 0
        self._finished = False

    async def receive(self) -> Message:
        message = await self._next()
        if self._bytes > self._limit:
            raise BodyTooLarge
        return message

    async def drain(self) -> None:
        while not self._finished and self._bytes < MOST_DRAINED_BYTES:
            await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._finished = not message.get("more_body", False)
        else:
            self._finished = True
        return message


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _check_announced_length(scope: Scope, limit: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise BodyTooLarge
