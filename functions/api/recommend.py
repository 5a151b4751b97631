"""GET /recommend/{user_id}."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from functions.addressable_ids import check_addressable
from functions.api import access
from functions.api.explained_scores import score_explanation
from functions.api.models import (
    Fallback,
    ItemExplanation,
    RecommendationExplanation,
    Recommendations,
    RecommendedItem,
    SourceExplanation,
)
from functions.api.parameters import (
    AddressableId,
    CategoryName,
    Device,
    IdList,
    Limit,
    Surface,
    UserIdPath,
    answer,
    iso,
    item_ids,
    problems,
)
from functions.api.worker import Worker
from functions.pages.page_explanation import PageExplanation
from functions.pages.recommender import Asked, Recommendation
from functions.pages.shown_items import ShownItem

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
    context_item: Annotated[AddressableId | None, Query(description="The item whose page this is")] = None,
    exclude: Annotated[
        list[IdList] | None, Query(description="Ids not to show: comma-separated, or the parameter repeated")
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
        explain,
    )
    return answer(_page(worker.get().recommender.recommend(asked)))


def _page(found: Recommendation) -> Recommendations:
    why = found.explanation
    return Recommendations(
        items=[_item(one, None if why is None else _item_explanation(one, why)) for one in found.items],
        recommendation_id=found.recommendation_id,
        release=found.release_id,
        as_of=iso(found.as_of),
        candidates=found.candidates_count,
        fallback=None if found.fallback is None else Fallback(cause=found.fallback),
        preferences_unavailable=found.preferences_unavailable,
        explanation=None if why is None else _page_explanation(found, why),
    )


def _item(shown: ShownItem, explanation: ItemExplanation | None) -> RecommendedItem:
    return RecommendedItem(
        item_id=shown.product.item_id,
        title=shown.product.title,
        rank=shown.rank,
        score=shown.score,
        sources=[name.value for name in shown.sources],
        reason=shown.reason,
        price_cents=shown.product.price_cents,
        category=shown.product.category,
        explanation=explanation,
    )


def _page_explanation(found: Recommendation, why: PageExplanation) -> RecommendationExplanation:
    examples: dict[str, list[str]] = {rule: list(items) for rule, items in why.removed_examples.items()}
    return RecommendationExplanation(removed=dict(found.removed), removed_examples=examples)


def _item_explanation(shown: ShownItem, why: PageExplanation) -> ItemExplanation:
    said = {name.value: SourceExplanation(rank=one.rank, score=one.score) for name, one in shown.sources.items()}
    score = None if why.scores is None else score_explanation(why.scores[shown.rank - 1])
    return ItemExplanation(sources=said, propensity=shown.propensity, score=score)
