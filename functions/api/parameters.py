"""Parameters that several endpoints take, and how instants and models are written."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from functions.addressable_ids import check_addressable
from functions.api.identifiers import ADDRESSABLE_ID, ID_LIST
from functions.api.models import Problem
from functions.api.worker import WorkerServices
from functions.preferences.preference_cache import Wishes
from shared.errors import InvalidIdentifier
from shared.events import from_ms
from shared.features.definitions import DEVICES, SURFACES

MOST_EXCLUDED: Final = 500
LONGEST_NAME: Final = 200

AddressableId = Annotated[str, Field(json_schema_extra=ADDRESSABLE_ID)]
UserIdPath = Annotated[
    str, Path(description="1 to 128 bytes of UTF-8", examples=["u-00007"], json_schema_extra=ADDRESSABLE_ID)
]
ItemIdPath = Annotated[
    str, Path(description="1 to 128 bytes of UTF-8", examples=["sku-00042"], json_schema_extra=ADDRESSABLE_ID)
]
IdList = Annotated[str, Field(json_schema_extra=ID_LIST)]
Limit = Annotated[int, Query(ge=1, le=100, description="How many items")]
ForUser = Annotated[
    AddressableId | None,
    Query(description="For whom: what she asked for in her preferences holds", examples=["u-00007"]),
]
CategoryName = Annotated[
    str | None,
    Query(min_length=1, max_length=LONGEST_NAME, description="Only items with this name on their category path"),
]
Device = Annotated[
    str | None,
    Query(
        min_length=1, max_length=LONGEST_NAME, description=f"What it is asked from: {', '.join(DEVICES)}, or another"
    ),
]
Surface = Annotated[
    str | None,
    Query(min_length=1, max_length=LONGEST_NAME, description=f"The page it is for: {', '.join(SURFACES)}, or another"),
]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of an endpoint's errors."""
    return {
        status: {"model": Problem, "content": {"application/problem+json": {}}, "description": "Problem details"}
        for status in statuses
    }


def item_ids(values: list[str] | None, name: str) -> tuple[str, ...]:
    """Ids from a parameter that may be repeated and may hold commas. Raises InvalidIdentifier."""
    ids = [part for value in values or () for part in value.split(",") if part]
    if len(ids) > MOST_EXCLUDED:
        raise InvalidIdentifier(f"{name} takes at most {MOST_EXCLUDED} ids, not {len(ids)}")
    return tuple(check_addressable(one, name) for one in ids)


def wishes_of(worker: WorkerServices, user_id: str | None) -> Wishes:
    """What the user asked for on whose behalf something is asked. Raises InvalidIdentifier, ReleaseUnavailable."""
    return worker.get().keeper.of(None if user_id is None else check_addressable(user_id, "user_id"))


def iso(at: int) -> str:
    """Epoch ms as the API writes instants."""
    return f"{from_ms(at).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def answer(model: BaseModel, status: int = 200) -> Response:
    """The model as JSON, written once: FastAPI would validate what was just built."""
    return Response(model.model_dump_json(), status, media_type="application/json")
