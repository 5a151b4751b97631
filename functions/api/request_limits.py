"""What a request may take: headers, query, body, time, and how often; and nothing leaves without an answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.api.problems import problem
from functions.api.worker import WorkerServices
from shared.settings import Settings

log = logging.getLogger(__name__)

MOST_HEADERS: Final = 100
MOST_QUERY_BYTES: Final = 65_535
"""500 excluded ids of the longest kind fit."""
MOST_DRAINED_BYTES: Final = 64 * 1024**2
"""So much of a body that is too large is read and thrown away, so that its sender can read the answer."""


class RequestRefused(Exception):
    """The request breaks a limit; the message is for its sender."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class RequestLimits:
    """ASGI middleware around the application, inside CORS: a page of another origin must be able to read refusals."""

    def __init__(self, app: ASGIApp, worker: WorkerServices) -> None:
        self._app = app
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; other scopes pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings = self._worker.settings
        answer = _Answer(scope, send, settings.request_timeout_ms / 1000)
        body = _LimitedBody(receive, settings, answer)
        answer.start_clock()
        try:
            check_head(scope, settings)
            if await self._may_come_in(scope, answer):
                await self._app(scope, body.receive, answer.send)
        except RequestRefused as refused:
            answer.refused = refused
        except ClientDisconnect:
            # Nobody reads this answer; it is counted as the client's fault, and no alarm is due.
            text = "the connection ended before the request was whole"
            await answer.replace(problem(400, text, kind="incomplete_request", instance=scope["path"]))
        except Exception:
            log.exception("a request failed: %s %s", scope["method"], getattr(scope.get("route"), "path", "none"))
            text = "this is our fault, not yours; it was logged"
            await answer.replace(problem(500, text, kind="internal_error", instance=scope["path"]))
        if answer.refused is not None:
            await _refuse(scope, body, answer, answer.refused)
        await answer.finish()

    async def _may_come_in(self, scope: Scope, answer: _Answer) -> bool:
        """Count the request; where it is one too many, answer it."""
        services = self._worker.composed
        admitted = None if services is None else services.admission.decide(scope)
        if admitted is None:
            return True
        if admitted.decision.allowed:
            answer.headers = [(name.lower().encode(), value.encode()) for name, value in admitted.headers().items()]
            return True
        text = f"too many requests from this {admitted.policy}; ask again after the seconds that Retry-After says"
        headers = admitted.headers()
        await answer.replace(problem(429, text, kind="too_many_requests", instance=scope["path"], headers=headers))
        return False


def check_head(scope: Scope, settings: Settings) -> None:
    """Raises RequestRefused where headers, query or the announced body are too large."""
    headers, max_header_bytes = scope["headers"], settings.max_header_bytes
    if len(headers) > MOST_HEADERS:
        raise RequestRefused(431, "too_many_headers", f"the request has more than {MOST_HEADERS} headers")
    if sum(len(name) + len(value) for name, value in headers) > max_header_bytes:
        raise RequestRefused(431, "headers_too_large", f"the headers have more than {max_header_bytes} bytes")
    if len(scope["query_string"]) > MOST_QUERY_BYTES:
        raise RequestRefused(414, "query_too_long", f"the query has more than {MOST_QUERY_BYTES} bytes")
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > settings.max_body_bytes:
            raise body_too_large(settings.max_body_bytes)


def body_too_large(most_bytes: int) -> RequestRefused:
    """The one text for it, whether it was announced or not."""
    return RequestRefused(
        413, "body_too_large", f"the body has more than the {most_bytes} bytes allowed; send less in one request"
    )


async def _refuse(scope: Scope, body: _LimitedBody, answer: _Answer, refused: RequestRefused) -> None:
    headers = {"Connection": "close"}
    if refused.status == 413 and await body.drain():
        headers = {}
    path = scope["path"]
    await answer.replace(problem(refused.status, str(refused), kind=refused.kind, instance=path, headers=headers))


class _Answer:
    """What is sent, with its status; a problem can take its place until the head has gone out, and must in time."""

    def __init__(self, scope: Scope, send: Send, longest_s: float) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.refused: RequestRefused | None = None
        self._scope = scope
        self._send = send
        self._longest_s = longest_s
        self._replaced = False
        self._clock: asyncio.TimerHandle | None = None
        self._late: asyncio.Task[None] | None = None

    def start_clock(self) -> None:
        """The application must begin to answer within the setting from now on."""
        self.stop_clock()
        self._clock = asyncio.get_running_loop().call_later(self._longest_s, self._overdue)

    def stop_clock(self) -> None:
        """Nothing is due for now: the body is being waited for, or all is done."""
        if self._clock is not None:
            self._clock.cancel()

    async def send(self, message: Message) -> None:
        """What the application answers; it is dropped once something else was answered."""
        if not self._replaced and self.refused is None:
            await self._put(message)

    async def replace(self, response: Response) -> None:
        """Answer this in place of the application, unless its answer has begun."""
        if not self.status and not self._replaced:
            self._replaced = True
            await response(self._scope, _no_body, self._put)

    async def finish(self) -> None:
        """Wait for what is being sent."""
        self.stop_clock()
        if self._late is not None:
            await self._late

    def _overdue(self) -> None:
        if not self.status and not self._replaced:
            text = f"this took longer than {self._longest_s:g} s; ask again after the seconds that Retry-After says"
            late = problem(503, text, kind="request_timeout", instance=self._scope["path"])
            self._late = asyncio.get_running_loop().create_task(self.replace(late))

    async def _put(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            if self.headers:
                message = {**message, "headers": [*message.get("headers", ()), *self.headers]}
        await self._send(message)


class _LimitedBody:
    """The body as it arrives: not more than the setting, and not later."""

    def __init__(self, receive: Receive, settings: Settings, answer: _Answer) -> None:
        self._receive = receive
        self._answer = answer
        self._most_bytes = settings.max_body_bytes
        self._longest_s = settings.read_timeout_ms / 1000
        self._deadline_s: float | None = None
        self._bytes = 0
        self._finished = False

    async def receive(self) -> Message:
        """The next part.

        A refusal is noted in the answer as well as raised: what reads a body may take an exception for its own.
        """
        if self._finished:
            return await self._receive()
        try:
            message = await self._next()
        except TimeoutError as error:
            text = f"the body was not whole after {self._longest_s:g} s"
            self._answer.refused = RequestRefused(408, "body_too_slow", text)
            raise self._answer.refused from error
        if self._bytes > self._most_bytes:
            self._answer.refused = body_too_large(self._most_bytes)
            raise self._answer.refused
        return message

    async def drain(self) -> bool:
        """Throw the rest away; whether that was the end of it."""
        try:
            while not self._finished and self._bytes < MOST_DRAINED_BYTES:
                await self._next()
        except TimeoutError:
            return False
        return self._finished

    async def _next(self) -> Message:
        loop = asyncio.get_running_loop()
        if self._deadline_s is None:
            self._deadline_s = loop.time() + self._longest_s
        self._answer.stop_clock()
        async with asyncio.timeout_at(self._deadline_s):
            message = await self._receive()
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._finished = not message.get("more_body", False)
        else:
            self._finished = True
        self._answer.start_clock()
        return message


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
