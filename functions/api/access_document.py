"""The OpenAPI document says what access control and the limits may answer: one place, for every route alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from functions.access.admission import EXEMPT
from functions.api.access import Audience, audience_of

SCHEMES: Final[dict[str, dict[str, str]]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A shopper's token, or one whose roles name service or operator; a key may stand here too",
    },
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A service's or an operator's key",
    },
}
_DESCRIPTIONS: Final = {
    400: "The body is no JSON, or did not arrive whole",
    401: "No valid credentials",
    403: "The credentials are valid and not enough",
    408: "The body did not arrive in time",
    413: "The body is larger than allowed",
    414: "The query is longer than allowed",
    429: "Too many requests; ask again after Retry-After seconds",
    431: "The headers are more or larger than allowed",
    503: "Something behind the API is away, or the answer took too long; Retry-After",
}


def audiences(app: FastAPI) -> Iterator[tuple[APIRoute, Audience]]:
    """Every route of the API with its audience."""
    for one in iter_route_contexts(app.routes):
        route = one.original_route
        if isinstance(route, APIRoute):
            yield route, audience_of(route)


def document_access(app: FastAPI, document: dict[str, Any]) -> dict[str, Any]:
    """Add security schemes, each operation's security, and the answers of access control and limits."""
    document.setdefault("components", {}).setdefault("securitySchemes", {}).update(SCHEMES)
    for route, audience in audiences(app):
        for method in route.methods or ():
            operation = document["paths"][route.path_format][method.lower()]
            operation["x-audience"] = audience.value
            names = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
            protected = audience is not Audience.ANYONE and (audience is not Audience.READER or "user_id" in names)
            if protected:
                operation["security"] = [{"token": []}, {"key": []}] + ([{}] if audience is Audience.READER else [])
            for status in _statuses(route.path, protected=protected, has_body="requestBody" in operation):
                _add(operation["responses"], status)
    return document


def _statuses(path: str, *, protected: bool, has_body: bool) -> list[int]:
    found = [401, 403] if protected else []
    found += [400, 408, 413] if has_body else []
    found += [414, 431] if path in EXEMPT else [414, 429, 431, 503]
    return found


def _add(responses: dict[str, Any], status: int) -> None:
    if str(status) not in responses:
        content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses[str(status)] = {"description": _DESCRIPTIONS[status], "content": content}
