"""In which order hits are shown."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.features.aggregations import NEVER

TEXT_SHARE: Final = 0.7
"""How much the text counts against the ranker in a personal order: measured in docs/decisions/0016-search.md."""

Indexes = NDArray[np.int64]


class SearchSort(StrEnum):
    """What a client may ask for."""

    RELEVANCE = "relevance"
    PRICE = "price"
    PRICE_DOWN = "-price"
    NEWEST = "newest"
    POPULARITY = "popularity"


def first(
    sort: SearchSort,
    most: int,
    hits: Indexes,
    *,
    scores: NDArray[np.float32],
    price_cents: NDArray[np.float64],
    arrived_at: NDArray[np.int64],
    popularity: NDArray[np.float64],
) -> Indexes:
    """The first `most` of `hits` (indexes of the shelf, ascending) in order; the other arrays are by hit.

    Ties go to the more popular, then by text score, then by index. Items that say nothing of their arrival come last
    among the newest.
    """
    keys: dict[SearchSort, NDArray[Any]] = {
        SearchSort.RELEVANCE: -scores,
        SearchSort.PRICE: price_cents,
        SearchSort.PRICE_DOWN: -price_cents,
        SearchSort.NEWEST: np.where(arrived_at == NEVER, 0, -arrived_at),
        SearchSort.POPULARITY: -popularity,
    }
    columns = (keys[sort], -popularity, -scores)
    kept = _smallest(columns, most)
    order = np.lexsort((hits[kept], *(column[kept] for column in reversed(columns))))
    return hits[kept[order]]


def _smallest(columns: tuple[NDArray[Any], ...], most: int) -> Indexes:
    """The places of the `most` rows that sort first, in no order: sorting a hundred thousand hits would take longer."""
    taken: list[Indexes] = []
    left = np.arange(len(columns[0]))
    for column in columns:
        wanted = most - sum(map(len, taken))
        if len(left) <= wanted:
            break
        values = column[left]
        last = np.partition(values, wanted - 1)[wanted - 1]
        taken.append(left[values < last])
        left = left[values == last]
    return np.concatenate([*taken, left[: most - sum(map(len, taken))]])


def blend(text: NDArray[np.float32], ranker: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[n]: the text score over the best, and the share of the page that the ranker puts below, weighted."""
    below = np.empty(len(ranker), dtype=np.float32)
    below[np.argsort(ranker, kind="stable")] = np.arange(len(ranker)) / max(len(ranker) - 1, 1)
    share = text / max(float(text.max(initial=0)), 1e-9)
    return np.asarray(TEXT_SHARE * share + (1 - TEXT_SHARE) * below, dtype=np.float32)
