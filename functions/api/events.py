"""POST /events."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from functions.api import access
from functions.api.batch_outcomes import answer_events
from functions.api.models import EventOutcome, EventsAccepted
from functions.api.parameters import problems
from functions.api.worker import Worker, WorkerServices
from functions.event_intake import MOST_EVENTS, Outcome
from shared.events import EventType

router = APIRouter(tags=["events"])

_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["event_id", "event_type", "occurred_at"],
    "additionalProperties": False,
    "properties": {
        "event_id": {"type": "string", "description": "Yours, unique: sent twice it counts once"},
        "event_type": {"enum": [kind.value for kind in EventType if kind is not EventType.USER_ERASED]},
        "occurred_at": {"type": "string", "format": "date-time"},
        "user_id": {"type": "string", "description": "Absent on item_updated"},
        "item_id": {"type": "string"},
        "session_id": {"type": "string"},
        "quantity": {"type": "integer", "minimum": 1},
        "price_cents": {"type": "integer", "minimum": 0},
        "recommendation_id": {"type": "string", "description": "Of the page this follows from"},
        "context": {"type": "object", "additionalProperties": {"type": "string"}},
        "changes": {"type": "object", "description": "Of item_updated and preferences_set"},
        "schema_version": {"const": 1},
    },
}
_EVENTS: Final[dict[str, Any]] = {"type": "array", "minItems": 1, "maxItems": MOST_EVENTS, "items": _EVENT}
_EXAMPLE: Final[list[dict[str, Any]]] = [
    {
        "event_id": "0f9a1b2c",
        "event_type": "view",
        "occurred_at": "2026-11-23T08:30:00.000Z",
        "user_id": "u-00007",
        "item_id": "sku-00042",
        "session_id": "s-1",
    }
]
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [_EVENTS, {"type": "object", "required": ["events"], "properties": {"events": _EVENTS}}]
                },
                "example": _EXAMPLE,
            }
        },
    }
}


@router.post(
    "/events",
    dependencies=[access.SERVICE],
    status_code=202,
    response_model=EventsAccepted,
    responses=problems(400, 413, 422, 503),
    openapi_extra=_BODY,
)
async def post_events(request: Request, worker: Worker) -> Response:
    """Take 1 to 500 events: a JSON array, or {"events": [...]}.

    202 says that the broker log has acknowledged every event whose outcome is accepted; the others are rejected with
    the reason, each for itself. 422: none was valid. 503: the broker log did not acknowledge all of them; send the
    same events again, with the same ids. Where it took some, the type is `partly_acknowledged` and outcomes tell which:
    only the unacknowledged ones need to be sent again.
    """
    body = await request.body()
    return await run_in_threadpool(_accept, worker, body)


def _accept(worker: WorkerServices, body: bytes) -> Response:
    return answer_events([_told(outcome) for outcome in worker.get().intake.accept(body)])


def _told(outcome: Outcome) -> EventOutcome:
    return EventOutcome(
        index=outcome.index, event_id=outcome.event_id, outcome=outcome.fate.value, reason=outcome.reason
    )
