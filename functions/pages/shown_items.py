"""From a ranked page to what is shown: products, the sources behind each, and a reason a shopper can read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from functions.releases.item_follower import Stock
from shared.catalog import Product
from shared.features.definitions import Retrieval
from shared.ranking.explanation import EXPLORED, carrying_source, reason
from shared.recommend import Page

_SOURCES = tuple(Retrieval)


@dataclass(frozen=True, slots=True)
class SourceSays:
    """One source's word on an item: its rank there from 1, and its score over the list's best."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class ShownItem:
    """One place of a page; `rank` counts from 1, `propensity` is the probability of just this placement."""

    product: Product
    rank: int
    score: float
    sources: dict[Retrieval, SourceSays]
    reason: str
    propensity: float


def show(stock: Stock, page: Page) -> list[ShownItem]:
    """The page's items, best first."""
    retrieval = page.candidates.retrieval
    ranks = retrieval.ranks[page.positions]
    said = zip(ranks.tolist(), retrieval.scores[page.positions].tolist(), strict=True)
    scores, propensities = page.scores[page.positions].tolist(), page.propensities.tolist()
    shown = []
    for place, (index, (rank_row, score_row)) in enumerate(zip(page.indexes.tolist(), said, strict=True)):
        product = product_at(stock, index)
        sources = {
            source: SourceSays(rank, score)
            for source, rank, score in zip(_SOURCES, rank_row, score_row, strict=True)
            if rank > 0
        }
        why = EXPLORED
        if place != page.explored_slot:
            why = _reason(stock, ranks[place], page.candidates.via[page.positions[place]], product)
        shown.append(ShownItem(product, place + 1, scores[place], sources, why, propensities[place]))
    return shown


def product_at(stock: Stock, index: int) -> Product:
    """The product behind a release's index."""
    shelf = stock.shelf
    return shelf.table.products[int(shelf.rows[index])]


def _reason(stock: Stock, ranks: NDArray[np.int16], via: NDArray[np.int32], product: Product) -> str:
    source = carrying_source(ranks)
    seed = None if source is None or (index := int(via[_SOURCES.index(source)])) < 0 else product_at(stock, index)
    return reason(source, None if seed is None or seed.deleted else seed.title, product.category)
