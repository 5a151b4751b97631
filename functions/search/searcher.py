"""Search: words to hits, filters and counts, an order, and for a known shopper her own order of the first hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from functions.pages.shown_items import product_at
from functions.releases.item_follower import Stock
from functions.releases.loaded_release import LoadedRelease
from functions.releases.release_watcher import ReleaseWatcher
from functions.search.personal_search import OrderedHits, PersonalSearch, Shopping
from functions.search.release_search import keep_up
from shared.catalog import Product
from shared.events import id_hash
from shared.ranking.rules import eligibility
from shared.search.cursor import MOST_SHOWN, CursorCodec
from shared.search.facets import Facets, Filters, apply
from shared.search.matching import MOST_WORDS, Hits, Matching
from shared.search.ordering import SearchSort, first

RANKED: Final = 200
"""So many of the hits not shown yet, the best by text, are put into the shopper's own order."""


@dataclass(frozen=True, slots=True)
class SearchAsked:
    """What a search asks for, as the client wrote it."""

    text: str
    user_id: str | None = None
    filters: Filters = field(default_factory=Filters)
    sort: SearchSort = SearchSort.RELEVANCE
    limit: int = 20
    cursor: str | None = None
    device: str | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        """What must stay the same from page to page."""
        chosen = self.filters
        bounds = (chosen.category, chosen.path, chosen.min_price_cents, chosen.max_price_cents, chosen.in_stock)
        return (self.text, self.user_id, *bounds, self.sort.value)


@dataclass(frozen=True, slots=True)
class FoundItem:
    """One place of the answer; `score` is the text's, over that of the best hit."""

    product: Product
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """The answer: `total` hits under all filters; `fallback` says why the order is not the shopper's own."""

    release_id: str
    items: list[FoundItem]
    total: int
    hits: Hits
    facets: Facets
    cursor: str | None
    recommendation_id: str | None = None
    fallback: str | None = None
    preferences_unavailable: bool = False


@dataclass(frozen=True, slots=True)
class _Selection:
    """The hits of one look at the items: `indexes` pass all filters, ascending; `left` of them were not shown yet."""

    hits: Hits
    facets: Facets
    indexes: NDArray[np.int64]
    left: NDArray[np.int64]


class Searcher:
    """The search service of a worker; safe to call from many threads."""

    def __init__(self, *, releases: ReleaseWatcher, personal: PersonalSearch, cursors: CursorCodec) -> None:
        self._releases = releases
        self._personal = personal
        self._cursors = cursors

    def search(self, asked: SearchAsked) -> Found:
        """Answer one request.

        Raises:
            ReleaseUnavailable: nothing has been published.
            InvalidCursor: the cursor is not of this search.
        """
        shown = [] if asked.cursor is None else self._cursors.decode(asked.identity, asked.cursor)
        release, shopping = self._read(asked)
        live = release.search
        keep_up(live, release.items, release.release_id)
        words = live.words(asked.text, MOST_WORDS)
        with release.items.reading(release.release_id) as stock:
            allowed = _allowed(stock, shopping)
            hits = Matching(live, stock.shelf.index_of_row, allowed).hits(words, _index_of(stock, asked.text))
            chosen = _select(stock, asked.filters, hits, shown)
            order = _ordered(stock, asked.sort, chosen, max(RANKED, asked.limit))
            ranked = None
            if shopping is not None:
                by_relevance = asked.sort is SearchSort.RELEVANCE
                wanted = OrderedHits(order, hits.scores[order], asked.limit, by_relevance)
                ranked = self._personal.rank(release, stock, shopping, wanted)
                order = ranked.page.indexes.astype(np.int64)
            items = _items(stock, hits, order[: asked.limit])
        found = Found(
            release_id=release.release_id,
            items=items,
            total=len(chosen.indexes),
            hits=hits,
            facets=chosen.facets,
            cursor=self._next(asked, shown, items, len(chosen.left)),
        )
        if shopping is None or ranked is None:
            return found
        return replace(
            found,
            recommendation_id=self._personal.record(
                release, stock, shopping, ranked, limit=asked.limit, category=asked.filters.category
            ),
            fallback=ranked.fallback,
            preferences_unavailable=shopping.seen.preferences_unavailable,
        )

    def _read(self, asked: SearchAsked) -> tuple[LoadedRelease, Shopping | None]:
        if asked.user_id is None:
            return self._releases.main_release(), None
        release = self._releases.release_for(asked.user_id)
        return release, self._personal.read(asked.user_id, asked.device, release)

    def _next(self, asked: SearchAsked, shown: list[int], items: list[FoundItem], left: int) -> str | None:
        """None where nothing is left, or so much was shown that a cursor would be too long."""
        seen = [*shown, *(id_hash(one.product.item_id) for one in items)]
        if left <= len(items) or len(seen) >= MOST_SHOWN:
            return None
        return self._cursors.encode(asked.identity, seen)


def _allowed(stock: Stock, shopping: Shopping | None) -> NDArray[np.bool_]:
    """bool[n]: what this shopper may be shown."""
    preferences = None if shopping is None else shopping.seen.shopper.preferences
    return eligibility(stock.shelf.table, stock.shelf.rows, preferences=preferences).allowed


def _select(stock: Stock, filters: Filters, hits: Hits, shown: Sequence[int]) -> _Selection:
    shelf = stock.shelf
    found = np.flatnonzero(hits.scores)
    kept, facets = apply(filters, shelf.table, shelf.rows[found])
    indexes = found[kept]
    left = indexes
    if shown:
        rows = [row for item in shown if (row := shelf.table.row_of.get(item)) is not None]
        left = indexes[~np.isin(shelf.rows[indexes], rows)]
    return _Selection(hits, facets, indexes, left)


def _index_of(stock: Stock, text: str) -> int | None:
    """The index of the item whose id is the whole query."""
    row = stock.shelf.table.row_of_id(text.strip().encode("utf-8", "replace").decode())
    if row is None or row >= len(stock.shelf.index_of_row):
        return None
    index = int(stock.shelf.index_of_row[row])
    return index if index >= 0 else None


def _ordered(stock: Stock, sort: SearchSort, chosen: _Selection, most: int) -> NDArray[np.int64]:
    shelf, left = stock.shelf, chosen.left
    rows = shelf.rows[left]
    return first(
        sort,
        most,
        left,
        scores=chosen.hits.scores[left],
        price_cents=shelf.table.price_cents[rows],
        arrived_at=shelf.table.arrived_at[rows],
        popularity=shelf.trends.scores[left],
    )


def _items(stock: Stock, hits: Hits, order: NDArray[np.int64]) -> list[FoundItem]:
    shares = (hits.scores[order] / hits.scores.max(initial=0)).tolist() if len(order) else []
    found = zip(order.tolist(), shares, strict=True)
    return [FoundItem(product_at(stock, index), rank, share) for rank, (index, share) in enumerate(found, start=1)]
