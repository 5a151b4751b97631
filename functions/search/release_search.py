"""A release's search index in a worker: opened, and kept up with the items that the worker follows."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from functions.releases.item_follower import FollowedItems, Stock
from shared.errors import CorruptRecord
from shared.releases.bundle import Bundle
from shared.search.index import SearchIndex, build_index
from shared.search.live import LiveIndex, Renewed
from shared.search.tokens import Tokenizer

log = logging.getLogger(__name__)

_TOKENIZER: Final = Tokenizer()


def open_search(bundle: Bundle) -> LiveIndex:
    """The bundle's index; one that has none, or one of another format, gets it now, from its catalogue snapshot."""
    if bundle.search is not None:
        try:
            return LiveIndex(SearchIndex(bundle.search), _TOKENIZER)
        except CorruptRecord as error:
            log.warning("release %s: %s; it is built anew", bundle.manifest.release_id, error)
    data = build_index(entry.product() for entry in bundle.entries)
    return LiveIndex(SearchIndex(data), _TOKENIZER)


def keep_up(live: LiveIndex, items: FollowedItems, release_id: str) -> None:
    """Take in the products that changed since the last time. Raises ReleaseUnavailable when the release is retired."""

    def changes(since: int) -> tuple[int, Iterable[Renewed]]:
        with items.reading(release_id) as stock:
            return _changes(stock, since)

    live.renew(changes)


def _changes(stock: Stock, since: int) -> tuple[int, Iterable[Renewed]]:
    """What is looked at now: the rest is computed when the items are no longer held."""
    shelf = stock.shelf
    if shelf.table.products_version == since:
        return since, ()
    rows = shelf.table.products_since(since)
    rows = rows[rows < len(shelf.index_of_row)]
    indexes = shelf.index_of_row[rows]
    indexes[indexes >= shelf.released] = -1
    products = [shelf.table.products[row] for row in rows.tolist()]
    told = zip(rows.tolist(), indexes.tolist(), products, strict=True)
    return shelf.table.products_version, (Renewed(row, index, one if one.item_id else None) for row, index, one in told)
