"""The outermost layer: every request has an id, every answer the headers that protect it, and both are counted."""

from __future__ import annotations

import logging
import os
import re
import time
from http import HTTPMethod
from typing import Final

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.access.caller import ANONYMOUS, CALLER
from functions.api.access import Audience, audience_of
from functions.api.worker import WorkerServices
from shared.log_lines import FIELDS, REQUEST_ID

log = logging.getLogger(__name__)

_SANE_ID: Final = re.compile(rb"[0-9a-fA-F-]{16,64}")
_METHODS: Final = frozenset(HTTPMethod)
_PROTECTING: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
)
_NO_STORE: Final = (b"cache-control", b"no-store")
_STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")


class RequestBoundary:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, worker: WorkerServices) -> None:
        self._app = app
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; other scopes pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = request_id_of(scope)
        token = REQUEST_ID.set(request_id)
        status = 0

        async def send_protected(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                added = self._added_headers(scope, request_id, status)
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        try:
            await self._app(scope, receive, send_protected)
        finally:
            self._record(scope, status, time.perf_counter() - began)
            REQUEST_ID.reset(token)

    def _added_headers(self, scope: Scope, request_id: str, status: int) -> list[tuple[bytes, bytes]]:
        added = [(b"x-request-id", request_id.encode()), *_PROTECTING]
        if status >= 400 or _is_personal(scope):
            added.append(_NO_STORE)
        if scope.get("scheme") == "https" or (self._worker.settings.trusted_proxies and _forwarded_https(scope)):
            added.append(_STRICT_TRANSPORT)
        return added

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        metrics = self._worker.metrics
        if metrics is not None:
            metrics.requests.labels(route, str(status)).inc()
            metrics.request_seconds.labels(route).observe(seconds)
        level = logging.WARNING if status >= 500 else logging.INFO
        if log.isEnabledFor(level):
            method = scope["method"] if scope["method"] in _METHODS else "other"
            role = scope.get(CALLER, ANONYMOUS).role.name.lower()
            fields = {"method": method, "route": route, "status": status, "ms": round(seconds * 1e3, 3), "role": role}
            # Made by hand: the logger would walk the stack to find out that it is called from here.
            record = logging.LogRecord(log.name, level, __file__, 0, "request", None, None)
            setattr(record, FIELDS, fields)
            log.handle(record)


def request_id_of(scope: Scope) -> str:
    """The client's X-Request-ID if it is 16 to 64 hexadecimal digits and hyphens, else a new one.

    Anything freer could carry a name or an address into the log.
    """
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if _SANE_ID.fullmatch(value) else os.urandom(16).hex()
    return os.urandom(16).hex()


def _is_personal(scope: Scope) -> bool:
    """Whether the answer may be for one caller alone, so that no cache may keep it."""
    route = scope.get("route")
    audience = audience_of(route) if isinstance(route, APIRoute) else Audience.ANYONE
    return audience is not Audience.ANYONE and (audience is not Audience.READER or b"user_id" in scope["query_string"])


def _forwarded_https(scope: Scope) -> bool:
    forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    return bool(forwarded) and forwarded[-1].rpartition(b",")[2].strip() == b"https"
