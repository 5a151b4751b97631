"""GET /releases, GET /releases/{release_id}, POST /releases/{release_id}/activate and POST /releases/rollback."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from functions.api import access
from functions.api.parameters import answer, iso, problems
from functions.api.releases_models import ReleaseChange, ReleaseDetail, Releases, ReleaseSummary
from functions.api.worker import Worker
from functions.releases.release_desk import ReleaseStanding
from shared.adapters.activation import Change

router = APIRouter(tags=["operation"])

MLFLOW: Final = (
    "the alias champion stays where it is until the next night, or until python -m batch.releases activate moves it"
)

_FACTS: Final = ("shop_name", "time_zone", "currency", "state_version", "schema_digest", "mlflow_run_id")

ReleaseId = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="As GET /releases lists it",
        examples=["20261120-0787cb6e"],
    ),
]
ExpectedVersion = Annotated[
    int | None,
    Query(
        ge=0,
        le=2**53,
        description="The allocation_version that was looked at: when it has moved since, the answer is 409 and nothing "
        "is changed",
    ),
]


@router.get("/releases", dependencies=[access.OPERATOR], response_model=Releases, responses=problems(503))
def list_releases(worker: Worker) -> Response:
    """Every finished release, newest first: which one serves, and which one a rollback would take."""
    found = worker.get().release_desk.overview()
    summaries = [ReleaseSummary(**_summary(one)) for one in found.releases]
    return answer(Releases(allocation_version=found.version, releases=summaries))


@router.get(
    "/releases/{release_id}", dependencies=[access.OPERATOR], response_model=ReleaseDetail,
    responses=problems(404, 422, 503),
)  # fmt: skip
def get_release(release_id: ReleaseId, worker: Worker) -> Response:
    """One release, and whether it may be activated: its files are fetched and checked, its lists counted."""
    desk = worker.get().release_desk
    version = desk.overview().version
    found, fault = desk.standing(release_id)
    manifest = found.manifest
    facts: dict[str, Any] = {name: getattr(manifest, name, None) for name in _FACTS}
    return answer(
        ReleaseDetail(
            **_summary(found),
            usable=fault is None,
            unusable_because=fault,
            allocation_version=version,
            **facts,
            evaluation=dict(manifest.evaluation) if manifest else {},
            files=dict(manifest.files) if manifest else {},
        )
    )


@router.post(
    "/releases/{release_id}/activate", dependencies=[access.OPERATOR], response_model=ReleaseChange,
    responses=problems(404, 409, 422, 503),
)  # fmt: skip
def activate_release(release_id: ReleaseId, worker: Worker, expected_version: ExpectedVersion = None) -> Response:
    """Give one release all traffic; workers follow within about a second.

    409: its files or lists are not whole (`unusable_release`), or somebody else moved the allocation meanwhile
    (`allocation_moved`); nothing was changed then. Activating what is active is no change, and an unfinished one is
    finished by sending it again.
    """
    return answer(_change(worker.get().release_desk.activate(release_id, expected_version)))


@router.post(
    "/releases/rollback",
    dependencies=[access.OPERATOR],
    response_model=ReleaseChange,
    responses=problems(409, 422, 503),
)
def roll_back(worker: Worker, expected_version: ExpectedVersion = None) -> Response:
    """Give all traffic back to the release that had it before; a second time goes back one further.

    409 as with activating. Name `expected_version` where a request might be sent twice.
    """
    return answer(_change(worker.get().release_desk.roll_back(expected_version)))


def _summary(one: ReleaseStanding) -> dict[str, Any]:
    manifest = one.manifest
    return {
        "release_id": one.release_id,
        "role": one.role,
        "weight": one.weight,
        "lists": one.lists,
        "events_until": None if manifest is None else iso(manifest.as_of),
        "items": None if manifest is None else manifest.items_count,
        "users": None if manifest is None else manifest.users_count,
        "fault": one.fault,
    }


def _change(change: Change) -> ReleaseChange:
    return ReleaseChange(
        release_id=change.after, before=change.before, allocation_version=change.version,
        retired=list(change.retired), mlflow=MLFLOW,
    )  # fmt: skip
