"""POST /events."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from functions.api import access
from functions.api.batch_outcomes import answer_events
from functions.api.events_document import events_schema
from functions.api.models import EventOutcome, EventsAccepted
from functions.api.parameters import problems
from functions.api.worker import Worker, WorkerServices
from functions.event_intake import Outcome

router = APIRouter(tags=["events"])

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
                "schema": events_schema(),
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
