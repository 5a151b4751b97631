"""POST /items:batch."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import ValidationError

from functions.api import access
from functions.api.batch_outcomes import answer_items
from functions.api.catalogue import STATUSES, IdempotencyKey, event_id_of
from functions.api.catalogue_models import BatchEntry, ItemOutcome, ItemsTaken
from functions.api.parameters import problems
from functions.api.worker import Worker, WorkerServices
from functions.catalogue.catalogue_writer import Change, InvalidChange, Written
from functions.event_intake import Fate, MalformedBatch
from shared.errors import InvalidEvent
from shared.events import to_ms

router = APIRouter(tags=["catalogue"])

MOST_ITEMS: Final = 1000
LONGEST_REASON: Final = 500

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["items"],
                    "additionalProperties": False,
                    "properties": {
                        "items": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MOST_ITEMS,
                            "items": BatchEntry.model_json_schema(),
                        }
                    },
                },
                "example": {"items": [{"item_id": "sku-00042", "stock": 3, "price_cents": 1250}]},
            }
        },
    }
}


@router.post(
    "/items:batch",
    dependencies=[access.SERVICE],
    status_code=202,
    response_model=ItemsTaken,
    responses=problems(*STATUSES),
    openapi_extra=_BODY,
)
async def post_items(request: Request, worker: Worker, *, idempotency_key: IdempotencyKey = None) -> Response:
    """Make or change 1 to 1,000 items: what an entry names is set, the rest stays as it is, as with PATCH.

    `deleted` takes an item out, or brings it back. Two entries of one item need an `occurred_at` each. 202 says that
    the broker log has acknowledged every item whose outcome is accepted; the others are rejected with the reason, each
    for itself. 422: none was valid. 503: the broker log did not acknowledge all of them, `partly_acknowledged` where it
    took some; send those again. With an Idempotency-Key the ids of the events are it, a point and the entry's index.
    """
    body = await request.body()
    return await run_in_threadpool(_write_all, worker, body, idempotency_key)


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    items: list[msgspec.Raw]


_BATCH: Final = msgspec.json.Decoder(_Batch)


class _Named(msgspec.Struct):
    item_id: str


_NAMED: Final = msgspec.json.Decoder(_Named)


def _write_all(worker: WorkerServices, body: bytes, idempotency_key: str | None) -> Response:
    entries = _entries_of(body)
    told: dict[int, ItemOutcome] = {}
    changes: dict[int, Change] = {}
    seen: dict[tuple[str, int | None], int] = {}
    for index, raw in enumerate(entries):
        try:
            change = _change_of(bytes(raw), event_id_of(idempotency_key, index))
            at = None if change.occurred_at is None else to_ms(change.occurred_at)
            before = seen.setdefault((change.item_id, at), index)
            if before != index:
                raise InvalidChange(
                    f"entry {before} is of the same item and instant: send one of them, or give each its occurred_at"
                )
            changes[index] = change
        except InvalidEvent as error:
            told[index] = _rejected(index, _item_id_of(raw), str(error))
    written = worker.get().catalogue_writer.write_all(list(changes.values()))
    told |= {index: _told(index, one) for index, one in zip(changes, written, strict=True)}
    return answer_items([told[index] for index in range(len(entries))])


def _told(index: int, written: Written) -> ItemOutcome:
    if written.fate is Fate.REJECTED:
        return _rejected(index, written.item_id, written.reason or "not a valid change of an item")
    return ItemOutcome(
        index=index,
        item_id=written.item_id,
        event_id=written.event_id,
        outcome=written.fate.value,
        reason=written.reason,
    )


def _rejected(index: int, item_id: str | None, reason: str) -> ItemOutcome:
    return ItemOutcome(
        index=index, item_id=item_id, event_id=None, outcome=Fate.REJECTED.value, reason=reason[:LONGEST_REASON]
    )


def _change_of(raw: bytes, event_id: str | None) -> Change:
    try:
        entry = BatchEntry.model_validate_json(raw)
    except ValidationError as error:
        said = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors())
        raise InvalidChange("; ".join(f"{at}: {text}" if at else text for at, text in said)) from error
    return Change(entry.item_id, entry.fields(), entry.instant(), event_id)


def _entries_of(body: bytes) -> list[msgspec.Raw]:
    try:
        entries = _BATCH.decode(body).items
    except msgspec.ValidationError as error:
        raise InvalidChange(f'the body must be {{"items": [...]}}: {error}') from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBatch(f"the body is not JSON: {error}") from error
    if not 1 <= len(entries) <= MOST_ITEMS:
        raise InvalidChange(f"a request carries 1 to {MOST_ITEMS} items, this one {len(entries)}")
    return entries


def _item_id_of(raw: msgspec.Raw) -> str | None:
    try:
        return _NAMED.decode(raw).item_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
