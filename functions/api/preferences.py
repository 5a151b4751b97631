"""PUT and GET /user_profile/{user_id}/preferences."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response

from functions.addressable_ids import check_addressable
from functions.api import access
from functions.api.parameters import UserIdPath, answer, problems
from functions.api.preferences_models import PreferencesAccepted, PreferencesBody, UserPreferences
from functions.api.worker import Worker
from shared.errors import StateUnavailable
from shared.events import Preferences

router = APIRouter(tags=["users"])

PATH = "/user_profile/{user_id}/preferences"


@router.put(
    PATH,
    dependencies=[access.SHOPPER],
    status_code=202,
    response_model=PreferencesAccepted,
    responses=problems(413, 422, 503),
)
def put_preferences(user_id: UserIdPath, body: PreferencesBody, worker: Worker) -> Response:
    """Replace what she asked for; every page obeys from the next request on.

    202 says that the broker log has acknowledged it. 503: it did not; send it again.
    """
    services = worker.get()
    checked = check_addressable(user_id, "user_id")
    wanted = msgspec.convert(body.model_dump(), Preferences)
    event_id = services.preference_setter.set(checked, wanted)
    everywhere = not services.keeper.is_waiting(checked)
    return answer(PreferencesAccepted(event_id=event_id, preferences=body, everywhere=everywhere), 202)


@router.get(PATH, dependencies=[access.SHOPPER], response_model=UserPreferences, responses=problems(422, 503))
def get_preferences(user_id: UserIdPath, worker: Worker) -> Response:
    """What she asks for now; the defaults if she never asked for anything.

    503: the state is away, and this worker does not remember her.
    """
    checked = check_addressable(user_id, "user_id")
    wanted, unavailable = worker.get().keeper.of(checked)
    if unavailable and wanted is None:
        raise StateUnavailable("what this user asked for cannot be read now; try again in a moment")
    told = PreferencesBody() if wanted is None else PreferencesBody(**msgspec.to_builtins(wanted))
    return answer(
        UserPreferences(user_id=checked, preferences=told, set=wanted is not None, preferences_unavailable=unavailable)
    )
