"""What is asked about items rather than for a user: one product, its neighbours, what is popular."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from functions.circuit import Circuit
from functions.pages.page_reader import PageReader
from functions.pages.shown_items import product_at
from functions.releases.item_follower import Stock
from functions.releases.loaded_release import LoadedRelease
from functions.releases.release_watcher import ReleaseWatcher
from shared.candidates.query import ListKind
from shared.candidates.young_neighbours import nearest_by_attributes
from shared.catalog import Product
from shared.errors import CorruptRecord, InfrastructureFault, StateUnavailable, UnknownItem
from shared.events import Preferences, id_hash
from shared.ranking.rules import eligibility
from shared.releases.lists import NeighbourList

NEW_ITEM = "new_item"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One related item; `columns` are the list's own numbers for it, the score first."""

    product: Product
    columns: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Related:
    """The items around one item; `fallback` is the cause when they do not come from its own list."""

    release_id: str
    product: Product
    neighbours: list[Neighbour]
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Popular products with their scores, best first."""

    release_id: str
    entries: list[tuple[Product, float]]


class CatalogReader:
    """Answers from the release that most users see. `preferences` are those of the user who asks, if one does."""

    def __init__(self, releases: ReleaseWatcher, reader: PageReader, circuit: Circuit) -> None:
        self._releases = releases
        self._reader = reader
        self._circuit = circuit

    def product(self, item_id: str) -> Product:
        """The product as it stands now, shown or not. Raises UnknownItem, ReleaseUnavailable."""
        with self._looking() as (_, stock):
            return _known(stock, item_id)

    def popular(self, category: str | None, limit: int, preferences: Preferences | None = None) -> Ranking:
        """What is popular now among what may be shown. Raises ReleaseUnavailable."""
        with self._looking() as (release, stock):
            best = _best(stock, _showable(stock, category, preferences), limit)
            scores = stock.shelf.trends.scores
            entries = [(product_at(stock, index), float(scores[index])) for index in best]
            return Ranking(release.release_id, entries)

    def related(self, kind: ListKind, item_id: str, limit: int, preferences: Preferences | None = None) -> Related:
        """The item's nightly list of this kind, less what may not be shown now.

        An item younger than the release has no list: similar ones are then those with like attributes.

        Raises:
            UnknownItem: the catalogue does not have it.
            ReleaseUnavailable: nothing has been published.
            StateUnavailable: the lists cannot be read now.
        """
        release = self._releases.main_release()
        with release.items.reading(release.release_id) as stock:
            _known(stock, item_id)
        index = release.index_of.get(id_hash(item_id))
        held = None if index is None else self._list(release, kind, index)
        with release.items.reading(release.release_id) as stock:
            product = _known(stock, item_id)
            if held is not None:
                return Related(release.release_id, product, _neighbours(stock, held, limit, preferences))
            if kind is not ListKind.SIMILAR or index is not None:
                return Related(release.release_id, product, [])
            return Related(release.release_id, product, _like(stock, item_id, limit, preferences), NEW_ITEM)

    def _list(self, release: LoadedRelease, kind: ListKind, index: int) -> NeighbourList | None:
        try:
            lists = self._circuit.call(lambda: self._reader.lists(release.release_id, [kind], [index]))
        except CorruptRecord as error:
            raise StateUnavailable(f"the list cannot be read: {error}") from error
        except InfrastructureFault as error:
            raise StateUnavailable("the lists of related items cannot be read now; try again in a moment") from error
        return lists.get((kind, index))

    @contextmanager
    def _looking(self) -> Iterator[tuple[LoadedRelease, Stock]]:
        release = self._releases.main_release()
        with release.items.reading(release.release_id) as stock:
            yield release, stock


def _like(stock: Stock, item_id: str, limit: int, preferences: Preferences | None) -> list[Neighbour]:
    """What may be shown and has like attributes."""
    table = stock.shelf.table
    row = table.row_of_id(item_id)
    assert row is not None, "whoever asks has seen its product"
    rows = stock.shelf.rows[_showable(stock, None, preferences)]
    places, scores = nearest_by_attributes(table, row, rows, limit)
    return [
        Neighbour(table.products[one], (score,))
        for one, score in zip(rows[places].tolist(), scores.tolist(), strict=True)
    ]


def _known(stock: Stock, item_id: str) -> Product:
    table = stock.shelf.table
    row = table.row_of_id(item_id)
    if row is None:
        raise UnknownItem(f"the catalogue has no item {item_id!r}")
    return table.products[row]


def _showable(stock: Stock, category: str | None, preferences: Preferences | None) -> NDArray[np.bool_]:
    """bool[n_items]: may be shown to who asks, and is in the category."""
    return eligibility(stock.shelf.table, stock.shelf.rows, category=category, preferences=preferences).allowed


def _best(stock: Stock, allowed: NDArray[np.bool_], limit: int) -> list[int]:
    order = stock.shelf.trends.order
    best: list[int] = order[allowed[order]][:limit].tolist()
    return best


def _neighbours(stock: Stock, held: NeighbourList, limit: int, preferences: Preferences | None) -> list[Neighbour]:
    rows = stock.shelf.rows[held.indexes]
    kept = np.flatnonzero(eligibility(stock.shelf.table, rows, preferences=preferences).allowed)[:limit]
    return [
        Neighbour(product_at(stock, int(held.indexes[place])), tuple(held.columns[:, place].tolist())) for place in kept
    ]
