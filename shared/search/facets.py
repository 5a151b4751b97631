"""Filters of a search, and how many hits each further filter would leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.features.items import ItemTable
from shared.features.views import Rows

MOST_CATEGORIES: Final = 50
PRICE_EDGES: Final = np.array([0, *(step * 10**power for power in range(2, 9) for step in (1, 2, 5))])
"""Cents: 0, 1.00, 2.00, 5.00, 10.00, ... in the shop's currency."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Filters:
    """None: not asked for. `in_stock` asks for items that are known to be in stock.

    `category` is a name anywhere on an item's path, `path` names from the root.
    """

    category: str | None = None
    min_price_cents: int | None = None
    max_price_cents: int | None = None
    in_stock: bool = False
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PriceBand:
    """Items from `min_price_cents` to `max_price_cents`, both included; the last band has no end."""

    min_price_cents: int
    max_price_cents: int | None
    count: int


@dataclass(frozen=True, slots=True)
class Facets:
    """Counts of hits: under all filters but the facet's own, so that each says what choosing it would find."""

    categories: list[tuple[str, int]]
    prices: list[PriceBand]
    in_stock: int
    stock_unknown: int


def apply(filters: Filters, table: ItemTable, rows: Rows) -> tuple[Mask, Facets]:
    """bool[len(rows)]: which of the hits pass; and the counts over all hits."""
    category = _in_category(filters, table, rows)
    price = _in_range(filters, table, rows)
    units = table.stock[rows]
    stock = units > 0 if filters.in_stock else np.ones(len(rows), np.bool_)
    stocked = units[category & price]
    facets = Facets(
        _categories(table, rows[price & stock]),
        _prices(table.price_cents[rows[category & stock]]),
        int(np.count_nonzero(stocked > 0)),
        int(np.count_nonzero(np.isnan(stocked))),
    )
    return category & price & stock, facets


def _in_category(filters: Filters, table: ItemTable, rows: Rows) -> Mask:
    chosen = np.ones(len(rows), np.bool_) if filters.category is None else table.in_category(filters.category, rows)
    for depth, name in enumerate(filters.path):
        code = table.code(name)
        chosen &= (table.paths[rows, depth] == code) & (code >= 0)
    return np.asarray(chosen)


def _in_range(filters: Filters, table: ItemTable, rows: Rows) -> Mask:
    price = table.price_cents[rows]
    chosen = np.ones(len(rows), np.bool_)
    if filters.min_price_cents is not None:
        chosen &= price >= filters.min_price_cents
    if filters.max_price_cents is not None:
        chosen &= price <= filters.max_price_cents
    return chosen


def _categories(table: ItemTable, rows: Rows) -> list[tuple[str, int]]:
    """Names with how many items have them on their path, most first; an item counts once for a name."""
    levels: list[NDArray[np.int64]] = []
    counts = np.zeros(1, dtype=np.int64)
    for depth in range(table.paths.shape[1]):
        codes = table.paths[rows, depth]
        if not (codes >= 0).any():
            break
        again = np.zeros(len(rows), np.bool_)
        for level in levels:
            again |= level == codes
        more = np.bincount(codes[(codes >= 0) & ~again])
        longest = max(len(counts), len(more))
        counts = np.pad(counts, (0, longest - len(counts))) + np.pad(more, (0, longest - len(more)))
        levels.append(codes)
    named = [(table.name(code), int(counts[code])) for code in np.flatnonzero(counts).tolist()]
    return sorted(named, key=lambda one: (-one[1], one[0]))[:MOST_CATEGORIES]


def _prices(price_cents: NDArray[np.float64]) -> list[PriceBand]:
    counts = np.bincount(np.searchsorted(PRICE_EDGES, price_cents, side="right"), minlength=len(PRICE_EDGES) + 1)[1:]
    ends = [edge - 1 for edge in PRICE_EDGES[1:].tolist()] + [None]
    bands = map(PriceBand, PRICE_EDGES.tolist(), ends, counts.tolist())
    return [band for band in bands if band.count]
