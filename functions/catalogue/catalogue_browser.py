"""Browsing what may be shown: the tree of categories, and the catalogue in an order, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from functions.catalogue.catalogue_order import CatalogueSort, Cursor, Order, order_of
from functions.catalogue.category_tree import CategoryTree, tree_of
from functions.releases.item_follower import Stock
from functions.releases.loaded_release import LoadedRelease
from functions.releases.release_watcher import ReleaseWatcher
from shared.catalog import Product
from shared.errors import InvalidCursor
from shared.events import Preferences
from shared.features.items import ItemTable
from shared.features.views import Rows
from shared.ranking.rules import eligibility
from shared.recommend import Shelf


@dataclass(frozen=True, slots=True)
class Browse:
    """What is asked for: filters, order, and which page, by cursor or by number from 1.

    `category` is a name anywhere on an item's category path, `path` names from the root. `in_stock` leaves out items
    whose stock is not known, too.
    """

    sort: CatalogueSort = CatalogueSort.ID
    size: int = 50
    cursor: str | None = None
    page: int = 1
    category: str | None = None
    path: tuple[str, ...] = ()
    min_price_cents: int | None = None
    max_price_cents: int | None = None
    in_stock: bool = False
    preferences: Preferences | None = None


@dataclass(frozen=True, slots=True)
class ProductPage:
    """One page of the available products that fit, of `total`; `next_cursor` is None on the last."""

    products: list[Product]
    total: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class _Made:
    """Something derived from a shelf, and the version of what it was derived from."""

    version: tuple[object, ...]
    order: Order


class CatalogueBrowser:
    """Answers from the release that most users see; orders and the tree are made anew when what they show changed."""

    def __init__(self, releases: ReleaseWatcher) -> None:
        self._releases = releases
        self._ids: tuple[tuple[object, ...], Sequence[str], NDArray[np.int64]] | None = None
        self._orders: dict[CatalogueSort, _Made] = {}
        self._tree: tuple[tuple[object, ...], CategoryTree] | None = None

    def categories(self) -> CategoryTree:
        """The tree over all that may be shown. Raises ReleaseUnavailable."""
        release = self._releases.main_release()
        with release.items.reading(release.release_id) as stock:
            shelf = stock.shelf
            version = (release.release_id, shelf.table, shelf.table.products_version, len(shelf.rows))
            held = self._tree
            if held is None or held[0] != version:
                held = self._tree = version, tree_of(shelf.table, shelf.rows[shelf.table.available[shelf.rows]])
            return held[1]

    def products(self, asked: Browse) -> ProductPage:
        """One page.

        With cursors, an item that does not change meanwhile is met exactly once, whatever comes, goes or changes around
        it; one that itself changes is met at its new place. Raises ReleaseUnavailable, InvalidCursor.
        """
        cursor = None if asked.cursor is None else Cursor.decode(asked.cursor)
        if cursor is not None and cursor.sort is not asked.sort:
            raise InvalidCursor(f"the cursor belongs to sort={cursor.sort.value}; begin again without one")
        release = self._releases.main_release()
        with release.items.reading(release.release_id) as stock:
            order = self._order(release, stock, asked.sort)
            table = stock.shelf.table
            fitting = np.flatnonzero(_fits(table, stock.shelf.rows[order.indexes], asked))
            start = (asked.page - 1) * asked.size
            if cursor is not None:
                start = int(np.searchsorted(fitting, order.after(cursor)))
            places = fitting[start : start + asked.size]
            following = None
            if len(places) and start + len(places) < len(fitting):
                last = places[-1]
                following = Cursor(asked.sort, float(order.keys[last]), order.item_ids[order.indexes[last]]).encode()
            rows = stock.shelf.rows[order.indexes[places]].tolist()
            return ProductPage([table.products[row] for row in rows], len(fitting), following)

    def _order(self, release: LoadedRelease, stock: Stock, sort: CatalogueSort) -> Order:
        shelf = stock.shelf
        moves = shelf.table.version if sort is CatalogueSort.POPULARITY else shelf.table.products_version
        version = (release.release_id, shelf.table, moves, len(shelf.rows))
        held = self._orders.get(sort)
        if held is None or held.version != version:
            held = self._orders[sort] = _Made(version, order_of(sort, shelf, *self._by_id(release, shelf)))
        return held.order

    def _by_id(self, release: LoadedRelease, shelf: Shelf) -> tuple[Sequence[str], NDArray[np.int64]]:
        """The shelf's ids, and its indexes in their order; made anew only when other items stand on the shelf."""
        young = shelf.rows[shelf.released :]
        version = (release.release_id, shelf.table, young.tobytes())
        held = self._ids
        if held is None or held[0] != version:
            ids = [*release.item_ids, *(shelf.table.products[row].item_id for row in young.tolist())]
            by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
            held = self._ids = version, ids, by_id
        return held[1:]


def _fits(table: ItemTable, rows: Rows, asked: Browse) -> NDArray[np.bool_]:
    """bool[len(rows)]: may be shown, and is what is asked for."""
    fits = eligibility(table, rows, category=asked.category, preferences=asked.preferences).allowed
    for depth, name in enumerate(asked.path):
        code = table.code(name)
        fits &= (table.paths[rows, depth] == code) & (code >= 0)
    if asked.min_price_cents is not None:
        fits &= table.price_cents[rows] >= asked.min_price_cents
    if asked.max_price_cents is not None:
        fits &= table.price_cents[rows] <= asked.max_price_cents
    if asked.in_stock:
        fits &= table.stock[rows] > 0
    return np.asarray(fits)
