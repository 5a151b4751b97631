"""Errors as RFC 9457 problem details: one shape for whatever goes wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import Route

from functions.access.caller import Forbidden, SigningKeysUnavailable, Unauthenticated
from functions.catalogue.catalogue_writer import InvalidChange
from functions.event_intake import MalformedBatch
from shared.errors import (
    AllocationMoved,
    BrokerUnavailable,
    ConfigurationError,
    InfrastructureFault,
    InvalidCursor,
    InvalidEvent,
    InvalidIdentifier,
    LakeConflict,
    ReleaseUnavailable,
    StateUnavailable,
    UnknownDeadLetter,
    UnknownItem,
    UnknownReceipt,
    UnknownRecommendation,
    UnknownRelease,
    UnusableRelease,
)
from shared.log_lines import REQUEST_ID

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2
NOTHING_THERE: Final = (
    "there is nothing at this address; /docs lists what there is. "
    "An id in an address may not hold '/', not as %2F either"
)
RAISED: Final[Sequence[tuple[type[Exception], int, str]]] = (
    (Unauthenticated, 401, "unauthenticated"),
    (Forbidden, 403, "forbidden"),
    (SigningKeysUnavailable, 503, "signing_keys_unavailable"),
    (UnknownItem, 404, "unknown_item"),
    (UnknownReceipt, 404, "unknown_receipt"),
    (UnknownRelease, 404, "unknown_release"),
    (UnknownDeadLetter, 404, "unknown_dead_letter"),
    (UnusableRelease, 409, "unusable_release"),
    (AllocationMoved, 409, "allocation_moved"),
    (UnknownRecommendation, 404, "unknown_recommendation"),
    (InvalidIdentifier, 422, "invalid_identifier"),
    (InvalidCursor, 422, "invalid_cursor"),
    (InvalidChange, 422, "invalid_items"),
    (InvalidEvent, 422, "invalid_events"),
    (MalformedBatch, 400, "malformed_json"),
    (ConfigurationError, 500, "misconfigured"),
    (ReleaseUnavailable, 503, "no_release"),
    (StateUnavailable, 503, "state_unavailable"),
    (BrokerUnavailable, 503, "broker_log_unavailable"),
    (InfrastructureFault, 503, "infrastructure_fault"),
    (LakeConflict, 503, "lake_moved"),
)
"""What the core raises, with its status and the last part of the problem's type; the first match counts."""


def problem(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    instance: str | None = None,
    headers: Mapping[str, str] | None = None,
    **extensions: object,
) -> Response:
    """A problem response; `kind` names the type, `extensions` are further members."""
    body: dict[str, Any] = {
        "type": "about:blank" if kind is None else f"urn:recommndr:problem:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
        "request_id": REQUEST_ID.get(),
    }
    body |= extensions
    kept = {name: value for name, value in body.items() if value is not None}
    sent = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        sent.setdefault("Retry-After", str(RETRY_AFTER_S))
    return Response(json.dumps(kept), status, sent, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every deliberate error, and the framework's own, as problems."""

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = NOTHING_THERE if error.status_code == HTTPStatus.NOT_FOUND else str(error.detail)
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{request.method} is not offered here; /docs lists what is"
            headers = {**(headers or {}), "Allow": ", ".join(_methods_at(app, request))}
        return problem(error.status_code, detail, instance=request.url.path, headers=headers)

    async def invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [{"at": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()]
        detail = "; ".join(f"{one['at']}: {one['message']}" for one in errors)
        return problem(422, detail, kind="invalid_request", instance=request.url.path, errors=errors)

    async def raised(request: Request, error: Exception) -> Response:
        status, kind = next((status, kind) for type_, status, kind in RAISED if isinstance(error, type_))
        headers = {"WWW-Authenticate": _challenge(error)} if isinstance(error, Unauthenticated) else None
        return problem(status, str(error), kind=kind, instance=request.url.path, headers=headers)

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid_request)
    for type_, _, _ in RAISED:
        app.add_exception_handler(type_, raised)


def _challenge(error: Unauthenticated) -> str:
    """RFC 6750, section 3: no error code where nothing was presented."""
    return 'Bearer realm="recommndr"' + (', error="invalid_token"' if error.presented else "")


def _methods_at(app: FastAPI, request: Request) -> list[str]:
    """What is offered at this address, by all its routes together: the framework tells the first one's alone."""
    path = request.scope["path"]
    routes = [one.original_route for one in iter_route_contexts(app.routes)]
    here = [route for route in routes if isinstance(route, Route) and route.path_regex.match(path)]
    exact = [route for route in here if route.path == path]
    return sorted({method for route in exact or here for method in route.methods or ()})
