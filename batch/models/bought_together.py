"""Frequently bought together: support, confidence and lift of pairs in baskets (Agrawal, Imielinski, Swami: Mining
Association Rules between Sets of Items in Large Databases, SIGMOD 1993).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from batch.models.neighbour_lists import tie_ranks, top_of_triples

BASKET_SPAN_MS: Final = 24 * 3600 * 1000
LARGEST_BASKET: Final = 200
"""Baskets of more products are wholesale orders: they say little about a pair, and pairs grow with the square."""


@dataclass(frozen=True, slots=True)
class BoughtTogetherParams:
    """min_count: pairs of fewer baskets are left out."""

    min_count: int = 2


@dataclass(frozen=True, slots=True)
class BoughtTogetherLists:
    """For each source item the targets bought with it, strongest first, [rows, k], padded with -1 and zeros.

    scores: confidence * log(lift), by which a list descends; support: share of all baskets that hold both; confidence:
    share of the source's baskets that hold the target; lift: confidence over the share of all baskets that hold the
    target; count: baskets that hold both.
    """

    indexes: NDArray[np.int32]
    scores: NDArray[np.float32]
    support: NDArray[np.float32]
    confidence: NDArray[np.float32]
    lift: NDArray[np.float32]
    count: NDArray[np.int32]


def assign_baskets(
    user: NDArray[np.int32], session: NDArray[np.int32], at: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """The basket of each purchase [n] as a number from 0, and how many baskets there are.

    Purchases come ordered by user, then time. A basket is a user's purchases of one session; those without a session
    (-1) go together while they lie within a day of the first of them.
    """
    alone = np.flatnonzero(session < 0)
    with_session = np.flatnonzero(session >= 0)
    basket = np.empty(len(user), dtype=np.int64)
    basket[alone] = _by_day(user[alone], at[alone])
    pairs = user[with_session].astype(np.int64) << 32 | session[with_session]
    keys, numbers = np.unique(pairs, return_inverse=True)
    offset = int(basket[alone].max()) + 1 if len(alone) else 0
    basket[with_session] = offset + numbers
    return basket, offset + len(keys)


def basket_matrix(
    basket: NDArray[np.int64], item: NDArray[np.int32], basket_count: int, item_count: int
) -> sparse.csr_array:
    """Which basket holds which product, int32 ones [baskets, items]; baskets above `LARGEST_BASKET` are left out."""
    matrix = sparse.csr_array(
        sparse.coo_array((np.ones(len(item), dtype=np.int32), (basket, item)), shape=(basket_count, item_count))
    )
    matrix.data[:] = 1
    return sparse.csr_array(matrix[np.diff(matrix.indptr) <= LARGEST_BASKET])


def bought_together(
    baskets: sparse.csr_array, start: int, stop: int, *, k: int, min_count: int = 2, seed: int = 0
) -> BoughtTogetherLists:
    """The k products best bought with each product from `start` to `stop` (exclusive), of `basket_matrix` rows.

    Pairs of fewer than `min_count` baskets and pairs of lift 1 or less are left out. Order: confidence * log(lift),
    what having bought the source tells of the target (the J-measure's term, Smyth and Goodman 1992): confidence alone
    puts best-sellers first, lift alone rarities. Ties stand in a seeded order.
    """
    total = max(1, baskets.shape[0])
    sold = np.bincount(baskets.indices, minlength=baskets.shape[1]).astype(np.float64)
    together = sparse.coo_array(baskets[:, start:stop].T @ baskets)
    rows, columns = together.coords
    counts = together.data.astype(np.float64)
    kept = (counts >= min_count) & (columns != rows + start)
    rows, columns, counts = rows[kept], columns[kept], counts[kept]
    confidence = counts / sold[rows + start]
    lift = confidence * total / sold[columns]
    strength = np.where(lift > 1, confidence * np.log(lift), 0)
    top = top_of_triples(rows, columns, strength, row_count=stop - start, k=k, ties=tie_ranks(baskets.shape[1], seed))

    found = top.indexes >= 0
    targets = np.where(found, top.indexes, 0)
    width = baskets.shape[1]
    order = np.argsort(rows * width + columns)
    wanted = np.arange(stop - start)[:, None] * width + targets
    place = np.searchsorted((rows * width + columns)[order], wanted)

    def of_pairs(values: NDArray[np.float64]) -> NDArray[np.float64]:
        chosen = np.append(values[order], 0)[np.minimum(place, len(values))]
        return np.where(found, chosen, 0)

    return BoughtTogetherLists(
        indexes=top.indexes,
        scores=top.scores,
        support=(of_pairs(counts) / total).astype(np.float32),
        confidence=of_pairs(confidence).astype(np.float32),
        lift=of_pairs(lift).astype(np.float32),
        count=of_pairs(counts).astype(np.int32),
    )


def _by_day(user: NDArray[np.int32], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers baskets greedily: a purchase more than a day after the first of its basket begins the next."""
    if len(user) == 0:
        return np.empty(0, dtype=np.int64)
    # One ascending key for (user, time), so that one search finds the next basket's first row.
    at = at - at.min()
    stride = int(at.max()) + 2 * BASKET_SPAN_MS
    key = user.astype(np.int64) * stride + at
    following = np.searchsorted(key, key + BASKET_SPAN_MS, side="right")
    begins = np.zeros(len(user), dtype=bool)
    current = np.flatnonzero(np.concatenate([[True], np.diff(user) != 0]))
    while len(current):
        begins[current] = True
        after = following[current]
        inside = after < len(user)
        current, after = current[inside], after[inside]
        current = after[user[after] == user[current]]
    return np.cumsum(begins) - 1
