"""GET /user_profile/{user_id}."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response

from functions.addressable_ids import check_addressable
from functions.api import access
from functions.api.models import CategoryShare, PastAction, UserProfile
from functions.api.parameters import UserIdPath, answer, iso, problems
from functions.api.worker import Worker

router = APIRouter(tags=["users"])


@router.get(
    "/user_profile/{user_id}", dependencies=[access.SHOPPER], response_model=UserProfile, responses=problems(422, 503)
)
def user_profile(user_id: UserIdPath, worker: Worker) -> Response:
    """Her features, what she did last, the categories she likes; of a user never seen, an empty profile."""
    checked = check_addressable(user_id, "user_id")
    found = worker.get().profiles.profile(checked)
    history = [
        PastAction(
            event_type=one.event_type.value,
            occurred_at=iso(one.at),
            item_id=None if one.product is None else one.product.item_id,
            title=None if one.product is None else one.product.title,
        )
        for one in found.history
    ]
    profile = UserProfile(
        user_id=checked,
        known=found.known,
        as_of=iso(found.as_of),
        features=found.features,
        recent_history=history,
        top_categories=[CategoryShare(category=name, share=share) for name, share in found.top_categories],
        preferences=None if found.preferences is None else msgspec.to_builtins(found.preferences),
        release=found.release_id,
    )
    return answer(profile)
