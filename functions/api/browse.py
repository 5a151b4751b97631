"""GET /items and GET /categories."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import Response

from functions.api import access
from functions.api.browse_models import Categories, CategoryNode
from functions.api.items import item_of
from functions.api.models import Items
from functions.api.parameters import LONGEST_NAME, CategoryName, ForUser, answer, problems, wishes_of
from functions.api.worker import Worker
from functions.catalogue import category_tree
from functions.catalogue.catalogue_browser import Browse
from functions.catalogue.catalogue_order import CatalogueSort

router = APIRouter(tags=["items"])

PAGE_SIZE: Final = 50
MOST_PRICE: Final = 10**11

Price = Annotated[int | None, Query(ge=0, le=MOST_PRICE, description="In the currency's hundredth")]
PathName = Annotated[str, Query(min_length=1, max_length=LONGEST_NAME)]


@router.get("/items", dependencies=[access.READER], response_model=Items, responses=problems(422, 503))
def list_items(
    worker: Worker,
    *,
    sort: Annotated[
        CatalogueSort, Query(description="What comes first; equals come in order of their ids")
    ] = CatalogueSort.ID,
    category: CategoryName = None,
    category_path: Annotated[
        list[PathName] | None,
        Query(max_length=10, description="Only items below this path of categories: repeated, from the root"),
    ] = None,
    min_price_cents: Price = None,
    max_price_cents: Price = None,
    in_stock: Annotated[bool, Query(description="Leave out items whose stock is not known")] = False,
    limit: Annotated[int, Query(ge=1, le=100, description="Items a page")] = PAGE_SIZE,
    cursor: Annotated[
        str | None,
        Query(min_length=1, max_length=1000, description="`next_cursor` of the page before, asked for in the same way"),
    ] = None,
    page: Annotated[int, Query(ge=1, le=10**6, description="Pages count from 1; without meaning beside a cursor")] = 1,
    user_id: ForUser = None,
) -> Response:
    """The catalogue's available items, a page at a time.

    With cursors an item that does not change meanwhile comes exactly once, whatever comes, goes or changes around it.
    Numbered pages are for jumping: what comes or goes between two of them moves the others.
    """
    preferences, unavailable = wishes_of(worker, user_id)
    asked = Browse(
        sort,
        limit,
        cursor,
        page,
        category,
        tuple(category_path or ()),
        min_price_cents,
        max_price_cents,
        in_stock,
        preferences,
    )
    found = worker.get().browser.products(asked)
    return answer(
        Items(
            items=[item_of(one) for one in found.products],
            page=page if cursor is None else None,
            pages=-(-found.total // limit),
            total=found.total,
            next_cursor=found.next_cursor,
            preferences_unavailable=unavailable,
        )
    )


@router.get("/categories", dependencies=[access.ANYONE], response_model=Categories, responses=problems(503))
def categories(worker: Worker) -> Response:
    """The tree of categories, with how many available items each has now."""
    tree = worker.get().browser.categories()
    return answer(
        Categories(
            categories=[_told(node) for node in tree.roots],
            items_count=tree.items_count,
            uncategorised_count=tree.uncategorised_count,
        )
    )


def _told(node: category_tree.CategoryNode) -> CategoryNode:
    return CategoryNode(
        name=node.name,
        path=list(node.path),
        items_count=node.items_count,
        children=[_told(child) for child in node.children],
    )
