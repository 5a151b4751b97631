"""GET /search."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import Response

from functions.addressable_ids import check_addressable
from functions.api import access
from functions.api.browse import PathName
from functions.api.models import Fallback
from functions.api.parameters import AddressableId, CategoryName, Device, Limit, answer, problems
from functions.api.search_models import (
    CategoryCount,
    PriceCount,
    SearchFacets,
    SearchItem,
    SearchResults,
    StockCount,
)
from functions.api.worker import Worker
from functions.search.searcher import Found, FoundItem, SearchAsked
from shared.search.cursor import LONGEST
from shared.search.facets import Facets, Filters
from shared.search.ordering import SearchSort

router = APIRouter(tags=["search"])

LONGEST_QUERY: Final = 2000
_MOST_CENTS: Final = 2**53

Words = Annotated[
    str,
    Query(
        max_length=LONGEST_QUERY,
        description="Words; the last one may be unfinished. There is no syntax: every character is data",
        examples=["enamel teapot"],
    ),
]
PriceBound = Annotated[int | None, Query(ge=0, le=_MOST_CENTS)]


@router.get("/search", dependencies=[access.READER], response_model=SearchResults, responses=problems(422, 503))
def search(
    worker: Worker,
    q: Words,
    *,
    category: CategoryName = None,
    category_path: Annotated[
        list[PathName] | None,
        Query(max_length=10, description="Only items below this path of categories: repeated, from the root"),
    ] = None,
    min_price_cents: PriceBound = None,
    max_price_cents: PriceBound = None,
    in_stock: Annotated[bool, Query(description="Only what is known to be in stock")] = False,
    sort: Annotated[SearchSort, Query(description="-price: the dearest first")] = SearchSort.RELEVANCE,
    limit: Limit = 20,
    cursor: Annotated[str | None, Query(max_length=LONGEST, description="`next_cursor` of the page before")] = None,
    user_id: Annotated[
        AddressableId | None,
        Query(description="Who asks: her preferences hold, and the first 200 hits come in her own order"),
    ] = None,
    device: Device = None,
) -> Response:
    """Items by words in id, title, brand, categories, description and attributes.

    Accents and case do not matter, and in words of five letters and more one typo does not either. Where no item has
    all words, those come that have the most. A page never repeats an item of the pages before it, and none is passed
    over, whatever happens in between.
    """
    asked = SearchAsked(
        text=q,
        user_id=None if user_id is None else check_addressable(user_id, "user_id"),
        filters=Filters(category, min_price_cents, max_price_cents, in_stock, tuple(category_path or ())),
        sort=sort,
        limit=limit,
        cursor=cursor,
        device=device,
    )
    return answer(_results(q, worker.get().searcher.search(asked)))


def _results(query: str, found: Found) -> SearchResults:
    return SearchResults(
        query=query,
        items=[_item(one) for one in found.items],
        total=found.total,
        matched=found.hits.matched.value,
        corrected=found.hits.corrected,
        did_you_mean=found.hits.did_you_mean,
        facets=_facets(found.facets),
        next_cursor=found.cursor,
        release=found.release_id,
        recommendation_id=found.recommendation_id,
        fallback=None if found.fallback is None else Fallback(cause=found.fallback),
        preferences_unavailable=found.preferences_unavailable,
    )


def _item(found: FoundItem) -> SearchItem:
    product = found.product
    return SearchItem(
        item_id=product.item_id,
        title=product.title,
        rank=found.rank,
        score=found.score,
        price_cents=product.price_cents,
        category=product.category,
        brand=product.brand,
        stock=product.stock,
    )


def _facets(facets: Facets) -> SearchFacets:
    return SearchFacets(
        categories=[CategoryCount(category=name, count=count) for name, count in facets.categories],
        prices=[
            PriceCount(min_price_cents=one.min_price_cents, max_price_cents=one.max_price_cents, count=one.count)
            for one in facets.prices
        ],
        stock=StockCount(in_stock=facets.in_stock, unknown=facets.stock_unknown),
    )
