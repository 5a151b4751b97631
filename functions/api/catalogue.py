"""PUT, PATCH and DELETE /items/{item_id}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response

from functions.addressable_ids import check_addressable
from functions.api import access
from functions.api.catalogue_models import (
    Instant,
    ItemPatch,
    ItemWritten,
    WholeItem,
)
from functions.api.parameters import ItemIdPath, answer, iso, problems
from functions.api.worker import Worker, WorkerServices
from functions.catalogue.catalogue_writer import Change, instant_of
from shared.events import check_id, to_ms

router = APIRouter(tags=["catalogue"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=120,
        pattern="^[!-.0-~]+$",
        description="Yours, unique for this change: it becomes the event's id",
    ),
]
OccurredAt = Annotated[
    Instant | None,
    Query(description="When it happened, for a back office that sends late or out of order; now where it is not said"),
]
STATUSES: Final = (400, 413, 422, 503)


@router.put(
    "/items/{item_id}",
    dependencies=[access.SERVICE],
    status_code=202,
    response_model=ItemWritten,
    responses=problems(*STATUSES),
)
def put_item(
    item_id: ItemIdPath,
    item: WholeItem,
    worker: Worker,
    *,
    occurred_at: OccurredAt = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make an item, or replace the whole of it; a deleted one comes back.

    What is left out is reset, but for `arrived_at`: an item that is new here arrives now, another keeps its own.
    """
    return _write(worker, item_id, item.fields(), occurred_at, idempotency_key)


@router.patch(
    "/items/{item_id}",
    dependencies=[access.SERVICE],
    status_code=202,
    response_model=ItemWritten,
    responses=problems(*STATUSES),
)
def patch_item(
    item_id: ItemIdPath,
    item: ItemPatch,
    worker: Worker,
    *,
    occurred_at: OccurredAt = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Change some fields, above all stock and price; the others stay as they are.

    An item that is not known is no error: its PUT may be under way. It is shown nowhere before it has a title.
    """
    return _write(worker, item_id, item.fields(), occurred_at, idempotency_key)


@router.delete(
    "/items/{item_id}",
    dependencies=[access.SERVICE],
    status_code=202,
    response_model=ItemWritten,
    responses=problems(*STATUSES),
)
def delete_item(
    item_id: ItemIdPath, worker: Worker, *, occurred_at: OccurredAt = None, idempotency_key: IdempotencyKey = None
) -> Response:
    """Take an item out of the catalogue: it is then a 404 and appears nowhere. PUT brings it back."""
    return _write(worker, item_id, {"deleted": True}, occurred_at, idempotency_key)


def _write(
    worker: WorkerServices,
    item_id: str,
    fields: Mapping[str, Any],
    occurred_at: str | None,
    idempotency_key: str | None,
) -> Response:
    at = None if occurred_at is None else instant_of(occurred_at)
    change = Change(check_addressable(item_id, "item_id"), fields, at, event_id_of(idempotency_key))
    written = worker.get().catalogue_writer.write(change)
    told = ItemWritten(item_id=item_id, event_id=written.event_id, occurred_at=iso(to_ms(written.occurred_at)))
    return answer(told, 202)


def event_id_of(idempotency_key: str | None, index: int | None = None) -> str | None:
    """The id of the event that carries a change; None where one is to be made up. Raises InvalidIdentifier."""
    if idempotency_key is None:
        return None
    return check_id(idempotency_key if index is None else f"{idempotency_key}.{index}", "Idempotency-Key")
