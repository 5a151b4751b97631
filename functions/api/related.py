"""GET /similar_items/{item_id} and /bought_together/{item_id}."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from functions.addressable_ids import check_addressable
from functions.api import access
from functions.api.models import BoughtTogether, BoughtTogetherItem, Fallback, RelatedItem, SimilarItems
from functions.api.parameters import ForUser, ItemIdPath, Limit, answer, problems, wishes_of
from functions.api.worker import Worker
from shared.candidates.query import ListKind

router = APIRouter(tags=["items"])


@router.get(
    "/similar_items/{item_id}",
    dependencies=[access.READER],
    response_model=SimilarItems,
    responses=problems(404, 422, 503),
)
def similar_items(item_id: ItemIdPath, worker: Worker, limit: Limit = 20, user_id: ForUser = None) -> Response:
    """Items like this one. An item younger than the release answers with those of like attributes."""
    checked = check_addressable(item_id, "item_id")
    preferences, unavailable = wishes_of(worker, user_id)
    found = worker.get().catalog.related(ListKind.SIMILAR, checked, limit, preferences)
    items = [
        RelatedItem(
            item_id=one.product.item_id,
            title=one.product.title,
            rank=rank,
            score=one.columns[0],
            price_cents=one.product.price_cents,
            category=one.product.category,
        )
        for rank, one in enumerate(found.neighbours, start=1)
    ]
    fallback = None if found.fallback is None else Fallback(cause=found.fallback)
    return answer(
        SimilarItems(
            item_id=checked,
            items=items,
            release=found.release_id,
            fallback=fallback,
            preferences_unavailable=unavailable,
        )
    )


@router.get(
    "/bought_together/{item_id}",
    dependencies=[access.READER],
    response_model=BoughtTogether,
    responses=problems(404, 422, 503),
)
def bought_together(item_id: ItemIdPath, worker: Worker, limit: Limit = 20, user_id: ForUser = None) -> Response:
    """Items often bought in one basket with this one."""
    checked = check_addressable(item_id, "item_id")
    preferences, unavailable = wishes_of(worker, user_id)
    found = worker.get().catalog.related(ListKind.BOUGHT_TOGETHER, checked, limit, preferences)
    items = []
    for rank, one in enumerate(found.neighbours, start=1):
        score, support, lift, confidence = one.columns
        items.append(
            BoughtTogetherItem(
                item_id=one.product.item_id,
                title=one.product.title,
                rank=rank,
                score=score,
                price_cents=one.product.price_cents,
                category=one.product.category,
                support=round(support),
                lift=lift,
                confidence=confidence,
            )
        )
    return answer(
        BoughtTogether(item_id=checked, items=items, release=found.release_id, preferences_unavailable=unavailable)
    )
