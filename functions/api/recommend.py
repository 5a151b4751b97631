"""GET /recommend/{user_id}."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from functions.addressable_ids import check_addressable
from functions.api import access
from functions.api.models import (
    Fallback,
    ItemExplanation,
    RecommendationExplanation,
    Recommendations,
    RecommendedItem,
    SourceExplanation,
)
from functions.api.parameters import CategoryName, Device, Limit, Surface, UserIdPath, answer, iso, item_ids, problems
from functions.api.worker import Worker
from functions.recommender import Asked, Recommendation
from functions.shown_items import ShownItem

router = APIRouter(tags=["recommendations"])


@router.get(
    "/recommend/{user_id}",
    dependencies=[access.SHOPPER],
    response_model=Recommendations,
    responses=problems(404, 422, 503),
)
def recommend(
    user_id: UserIdPath,
    worker: Worker,
    *,
    limit: Limit = 20,
    category: CategoryName = None,
    context_item: Annotated[str | None, Query(description="The item whose page this is")] = None,
    exclude: Annotated[
        list[str] | None, Query(description="Ids not to show: comma-separated, or the parameter repeated")
    ] = None,
    device: Device = None,
    surface: Surface = None,
    explain: Annotated[bool, Query(description="Add what each source said, and what the rules took away")] = False,
) -> Response:
    """The items for this user now, best first, each with a reason she can read."""
    asked = Asked(
        check_addressable(user_id, "user_id"),
        limit,
        category,
        None if context_item is None else check_addressable(context_item, "context_item"),
        item_ids(exclude, "exclude"),
        device,
        surface,
    )
    return answer(_page(worker.get().recommender.recommend(asked), explain=explain))


def _page(found: Recommendation, *, explain: bool) -> Recommendations:
    return Recommendations(
        items=[_item(one, explain=explain) for one in found.items],
        recommendation_id=found.recommendation_id,
        release=found.release_id,
        as_of=iso(found.as_of),
        candidates=found.candidates_count,
        fallback=None if found.fallback is None else Fallback(cause=found.fallback),
        explanation=RecommendationExplanation(removed=dict(found.removed)) if explain else None,
    )


def _item(shown: ShownItem, *, explain: bool) -> RecommendedItem:
    said = {name.value: SourceExplanation(rank=one.rank, score=one.score) for name, one in shown.sources.items()}
    return RecommendedItem(
        item_id=shown.product.item_id,
        title=shown.product.title,
        rank=shown.rank,
        score=shown.score,
        sources=list(said),
        reason=shown.reason,
        price_cents=shown.product.price_cents,
        category=shown.product.category,
        explanation=ItemExplanation(sources=said, propensity=shown.propensity) if explain else None,
    )
