"""What other methods are asked and told: the queries of a page table, and everything known before each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from batch.interactions import CART, PURCHASE, REMOVE_FROM_CART, VIEW, Interactions
from batch.models.bought_together import assign_baskets
from shared.ranking.page_table import PageTable

DAY_MS: Final = 86_400_000
STRENGTHS: Final = {"bought": (0.0, 0.0, 1.0), "all": (1.0, 1.0, 1.0), "graded": (1.0, 3.0, 5.0)}
"""What a view, a cart and a purchase count, by the name of the choice."""


@dataclass(frozen=True, slots=True)
class PeerQueries:
    """q queries in the order of their pages; `user` is the index of nightly/interactions.

    Rows r of what each query's user had done by then: `row` (the query), `item`, `age_days`, `lag` (how many of her
    baskets or visits lie between), `kind` (event type code). `positives` are what is to be found, `new` those of them
    that she had never acted on.
    """

    user: NDArray[np.int32]
    as_of: NDArray[np.int64]
    baskets: NDArray[np.int32]
    row: NDArray[np.int32]
    item: NDArray[np.int32]
    age_days: NDArray[np.float32]
    lag: NDArray[np.int32]
    kind: NDArray[np.int8]
    positives: list[list[int]]
    new: list[list[int]]

    def __len__(self) -> int:
        return len(self.user)

    def history(self, items: int, strength: tuple[float, ...], *, decay: float = 1.0) -> sparse.csr_array:
        """float32[q, items]: what each user did, an action worth `strength` of its kind, `decay` to the lag."""
        worth = np.zeros(4, dtype=np.float32)
        worth[[VIEW, CART, PURCHASE]] = strength
        weight: NDArray[np.float32] = (worth[self.kind] * decay**self.lag).astype(np.float32)
        kept = weight > 0
        found = sparse.coo_array((weight[kept], (self.row[kept], self.item[kept])), shape=(len(self), items))
        return sparse.csr_array(found)

    def touched(self, items: int) -> sparse.csr_array:
        """float32[q, items], above 0 where the user had acted on the item."""
        return self.history(items, STRENGTHS["all"])

    def withheld(self, items: int, bought_window_days: int) -> sparse.csr_array:
        """float32[q, items], above 0 where the shop's rule withholds what was bought lately."""
        lately = (self.kind == PURCHASE) & (self.age_days < bought_window_days)
        ones = np.ones(int(lately.sum()), dtype=np.float32)
        found = sparse.coo_array((ones, (self.row[lately], self.item[lately])), shape=(len(self), items))
        return sparse.csr_array(found)


def queries_of_pages(pages: PageTable, interactions: Interactions, *, starts_only: bool) -> PeerQueries:
    """The pages as queries; `starts_only` leaves out pages inside a session and those of strangers.

    A positive that the catalogue does not know is a number of its own behind all items and is never found.
    """
    kept = np.flatnonzero(np.asarray(pages.at_start) & ~np.asarray(pages.stranger)) if starts_only else None
    chosen = np.arange(len(pages.length)) if kept is None else kept
    ends = np.cumsum(pages.positives)
    unknown = int(interactions.item.max(initial=0)) + 1
    positives, new = [], []
    for query in chosen.tolist():
        places = range(int(ends[query] - pages.positives[query]), int(ends[query]))
        items = [int(pages.positive_items[place]) for place in places]
        named = [item if item >= 0 else unknown + number for number, item in enumerate(items)]
        positives.append(named)
        new.append([item for item, place in zip(named, places, strict=True) if not pages.touched[place]])
    user, as_of = np.asarray(pages.user)[chosen].astype(np.int32), np.asarray(pages.as_of)[chosen]
    return _with_histories(user, as_of, interactions, positives, new)


def _with_histories(
    user: NDArray[np.int32],
    as_of: NDArray[np.int64],
    interactions: Interactions,
    positives: list[list[int]],
    new: list[list[int]],
) -> PeerQueries:
    edges = np.searchsorted(interactions.user, np.arange(int(interactions.user.max()) + 2))
    known_user = np.minimum(user, len(edges) - 2)
    counts = np.where(user < len(edges) - 1, np.diff(edges)[known_user], 0)
    row = np.repeat(np.arange(len(user)), counts)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(edges[known_user], counts)
    known = interactions.enqueued_at[place] <= as_of[row]
    known &= interactions.event_type[place] != REMOVE_FROM_CART
    row, place = row[known], place[known]
    number = basket_numbers(interactions)[place]
    newest = np.full(len(user), -1, dtype=np.int64)
    np.maximum.at(newest, row, number)
    oldest = np.full(len(user), np.iinfo(np.int32).max, dtype=np.int64)
    np.minimum.at(oldest, row, number)
    return PeerQueries(
        user=user,
        as_of=as_of,
        baskets=np.where(newest < 0, 0, newest - oldest + 1).astype(np.int32),
        row=row.astype(np.int32),
        item=interactions.item[place],
        age_days=np.maximum((as_of[row] - interactions.at[place]) / DAY_MS, 0).astype(np.float32),
        lag=(newest[row] - number).astype(np.int32),
        kind=interactions.event_type[place],
        positives=positives,
        new=new,
    )


def basket_numbers(interactions: Interactions) -> NDArray[np.int64]:
    """int64[n]: the basket of each row, ascending by user and then by the basket's first event."""
    basket, count = assign_baskets(interactions.user, interactions.session, interactions.at)
    first = np.full(count, len(basket), dtype=np.int64)
    np.minimum.at(first, basket, np.arange(len(basket)))
    place = np.empty(count, dtype=np.int64)
    place[np.argsort(first, kind="stable")] = np.arange(count)
    return np.asarray(place[basket])
