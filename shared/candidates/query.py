"""What a candidate source may look at, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.candidates.opinion import Opinion
from shared.candidates.ranked import Indexes, Scores
from shared.candidates.trends import Trends
from shared.features.definitions import Retrieval
from shared.features.views import UserView


class ListKind(StrEnum):
    """The nightly per-item neighbour lists."""

    COOCCURRENCE = "cooccurrence"
    TRANSITIONS = "transitions"
    ATTRIBUTES = "attributes"
    SIMILAR = "similar"
    BOUGHT_TOGETHER = "bought_together"


REQUEST_KINDS: Final = (ListKind.COOCCURRENCE, ListKind.TRANSITIONS, ListKind.ATTRIBUTES)
"""Those that candidate sources put together at request time; the others answer requests of their own."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Neighbour lists of m seeds: int32[m, k] item indexes (-1 pads) and float32[m, k] scores, best first."""

    indexes: Indexes
    scores: Scores


@dataclass(frozen=True, slots=True)
class Acts:
    """A user's listed actions, newest first; arrays of length a.

    `items` are places in `History.indexes`, `at` instants in epoch ms and `weights` what an action of its type says.
    """

    items: NDArray[np.int64]
    at: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def none(cls) -> Acts:
        """She did nothing."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True, slots=True)
class History:
    """A user's recent distinct items in a release's index, newest first; arrays of length m.

    `weights` are those of the strongest action on each item, `at` the newest action's instant (epoch ms) and
    `counts` how many listed actions touch it; `acts` are those actions themselves.
    """

    indexes: Indexes
    weights: NDArray[np.float64]
    at: NDArray[np.int64]
    counts: NDArray[np.int64]
    acts: Acts = field(default_factory=Acts.none)


@dataclass(frozen=True, slots=True)
class Query:
    """One request as retrieval sees it.

    The newest items of the history, after `context_item` if there is one, are the m `seeds`, and `neighbours` holds
    their lists. `seed_strength` is what each seed's action says, whenever it was, and `seed_age` how many distinct
    items the user has touched since (0 for the page's own item, too).
    """

    user: UserView
    history: History
    seeds: Indexes
    seed_strength: NDArray[np.float64]
    seed_age: NDArray[np.int64]
    neighbours: Mapping[ListKind, Neighbours]
    trends: Trends
    as_of: int
    eligible: NDArray[np.bool_]
    """bool[n_items]: may be shown to this user now."""
    context: int = -1
    """Index of the page's own item; -1 where a page has none."""
    favourites: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """float64[c]: the weight of each category code that the user named as a favourite; empty where she named none."""

    def seed_weights(self, decay: float) -> NDArray[np.float64]:
        """float64[m]: strength, times `decay` for each step of age."""
        return np.asarray(self.seed_strength * decay**self.seed_age, dtype=np.float64)


class CandidateSource(Protocol):
    """A retrieval method. `consider` is pure: equal queries, equal opinions."""

    @property
    def name(self) -> Retrieval:
        """Which column of the retrieval block is its own."""
        ...

    def consider(self, query: Query) -> Opinion:
        """What it says of the shop's items."""
        ...


def history_of(user: UserView, index_of_row: NDArray[np.int32]) -> History:
    """The user's distinct items that the release knows; `index_of_row` maps table rows to its index.

    -1 there is an item the release does not know; rows beyond it are items younger than the shelf.
    """
    actions = user.actions
    known = (actions.rows >= 0) & (actions.rows < len(index_of_row))
    indexes = np.full(len(actions.rows), -1, np.int32)
    indexes[known] = index_of_row[actions.rows[known]]
    kept = indexes >= 0
    indexes, weights, at = indexes[kept], actions.weights[kept], actions.at[kept]
    distinct, first, inverse, counts = np.unique(indexes, return_index=True, return_inverse=True, return_counts=True)
    strongest = np.zeros(len(distinct))
    np.maximum.at(strongest, inverse, weights)
    order = np.argsort(first, kind="stable")
    places = np.argsort(order)
    acts = Acts(places[inverse], at, weights)
    return History(distinct[order], strongest[order], at[first[order]], counts[order], acts)
