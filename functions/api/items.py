"""GET /items/{item_id} and /popular, and how a product is told."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from functions.addressable_ids import check_addressable
from functions.api import access
from functions.api.models import Item, PopularItems, RelatedItem
from functions.api.parameters import CategoryName, ForUser, ItemIdPath, Limit, answer, iso, problems, wishes_of
from functions.api.worker import Worker
from shared.catalog import Product

router = APIRouter(tags=["items"])


@router.get("/items/{item_id}", dependencies=[access.ANYONE], response_model=Item, responses=problems(404, 422, 503))
def get_item(item_id: ItemIdPath, worker: Worker) -> Response:
    """One item as it stands now, whether it may be shown or not."""
    return answer(item_of(worker.get().catalog.product(check_addressable(item_id, "item_id"))))


@router.get("/popular", dependencies=[access.READER], response_model=PopularItems, responses=problems(422, 503))
def popular(worker: Worker, category: CategoryName = None, limit: Limit = 20, user_id: ForUser = None) -> Response:
    """What is popular now, newer actions counting more."""
    preferences, unavailable = wishes_of(worker, user_id)
    found = worker.get().catalog.popular(category, limit, preferences)
    items = [
        RelatedItem(
            item_id=product.item_id,
            title=product.title,
            rank=rank,
            score=score,
            price_cents=product.price_cents,
            category=product.category,
        )
        for rank, (product, score) in enumerate(found.entries, start=1)
    ]
    return answer(PopularItems(items=items, release=found.release_id, preferences_unavailable=unavailable))


def item_of(product: Product) -> Item:
    """The product as the API tells it."""
    return Item(
        item_id=product.item_id,
        title=product.title,
        description=product.description,
        categories=list(product.categories),
        category=product.category,
        brand=product.brand,
        price_cents=product.price_cents,
        stock=product.stock,
        hidden=product.hidden,
        available=product.available,
        arrived_at=None if product.arrived_at is None else iso(product.arrived_at),
        attributes=product.attributes,
    )
