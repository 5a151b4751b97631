"""Items like one that no list knows yet: by what the catalogue says of them, its categories, brand, price and title."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.catalog import Product
from shared.features.items import ItemTable
from shared.features.views import Rows

PATH_WEIGHT: Final = 4.0
BRAND_WEIGHT: Final = 1.0
PRICE_WEIGHT: Final = 1.0
TITLE_WEIGHT: Final = 3.0
READ_TITLES: Final = 500
"""So many of the nearest by their columns have their titles compared."""

_WORDS: Final = re.compile(r"\w+")


def nearest_by_attributes(
    table: ItemTable, row: int, rows: Rows, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `limit` of `rows` most like the item of `row`: places in `rows`, best first, and scores in (0, 1].

    A score is the weighted mean of: the share of the item's category path that the other has too, equal brands, price
    nearness (1 when equal, 1/2 at twice the price), and the share of distinct title words in common (Jaccard). Items
    without a category, brand or word in common are left out; ties go by `rows`' order.
    """
    path = table.paths[row][table.paths[row] >= 0]
    shared_path = np.zeros(len(rows))
    for code in path.tolist():
        shared_path += (table.paths[rows] == code).any(axis=1)
    same_brand = (table.brand[rows] == table.brand[row]) & (table.brand[row] >= 0)
    scores = PATH_WEIGHT * shared_path / max(len(path), 1) + BRAND_WEIGHT * same_brand
    places = np.flatnonzero((scores > 0) & (rows != row))
    scores = scores[places] + PRICE_WEIGHT * _nearness(table.price_cents[rows[places]], float(table.price_cents[row]))
    kept = np.argsort(-scores, kind="stable")[:READ_TITLES]
    places, scores = places[kept], scores[kept]
    products = [table.products[one] for one in rows[places].tolist()]
    scores += TITLE_WEIGHT * _words_in_common(table.products[row], products)
    order = np.argsort(-scores, kind="stable")[:limit]
    return places[order], scores[order] / (PATH_WEIGHT + BRAND_WEIGHT + PRICE_WEIGHT + TITLE_WEIGHT)


def _nearness(price_cents: NDArray[np.float64], price: float) -> NDArray[np.float64]:
    if price <= 0:
        return np.zeros(len(price_cents))
    apart = np.abs(np.log2(np.maximum(price_cents, 1.0)) - np.log2(price))
    return np.where(price_cents > 0, np.exp2(-apart), 0.0)


def _words_in_common(product: Product, others: Sequence[Product]) -> NDArray[np.float64]:
    own = _words(product)
    found = [_words(other) for other in others]
    return np.array([len(own & words) / max(len(own | words), 1) for words in found], dtype=np.float64)


def _words(product: Product) -> set[str]:
    return set(_WORDS.findall(product.title.casefold()))
