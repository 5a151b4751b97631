"""What feature declarations read: one user, a block of candidate items, the request, what retrieval said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from shared.events import EventType, from_ms
from shared.features.aggregations import Aggregation, Decayed, Floats, Ints, LastK, Layout
from shared.features.state import EntityState

Rows = NDArray[np.int64]

SESSION_GAP_MS = 30 * 60_000
ACTION_WEIGHT = {EventType.VIEW: 1.0, EventType.CART: 3.0, EventType.PURCHASE: 5.0}
"""How much more an action says about taste than a view does."""
AFFINITY_HALF_LIFE_MS = 14 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Actions:
    """A user's recent actions, newest first; each array has length m.

    `rows` are item table rows (-1: an item the table does not know), `at` effective times in epoch ms,
    `weights` the `ACTION_WEIGHT` of each.
    """

    rows: Rows
    at: Ints
    weights: Floats


class UserView:
    """One user's merged state at an instant, with her items resolved to rows of the item table."""

    def __init__(self, state: EntityState, as_of: int, lists: dict[EventType, tuple[Rows, Ints]]) -> None:
        """`lists[type]` = (rows, effective times) of the newest events of that type, ascending in time."""
        self.state = state
        self.as_of = max(as_of, state.newest_at)
        self.lists = lists

    @cached_property
    def decayed(self) -> Floats:
        """float64[D] at `as_of`."""
        return self.state.decayed_at(self.as_of)

    def value(self, aggregation: Aggregation) -> float:
        """The value of one stored aggregation (not a list) at `as_of`."""
        slot = self.state.layout.slot[aggregation]
        if isinstance(aggregation, Decayed):
            return float(self.decayed[slot])
        stored = self.state.earliest if aggregation in self.state.layout.earliest else self.state.counts
        return float(stored[slot])

    @cached_property
    def actions(self) -> Actions:
        """All listed actions, newest first.

        Of one instant the heavier action comes first, then the later in its list: never an order of table rows,
        which differs from process to process.
        """
        rows = np.concatenate([rows for rows, _ in self.lists.values()])
        at = np.concatenate([at for _, at in self.lists.values()])
        weights = np.concatenate([np.full(len(rows), ACTION_WEIGHT[kind]) for kind, (rows, _) in self.lists.items()])
        places = np.concatenate([np.arange(len(rows)) for rows, _ in self.lists.values()])
        order = np.lexsort((-places, -weights, -at))
        return Actions(rows[order], at[order], weights[order])

    @cached_property
    def taste(self) -> Floats:
        """float64[m]: the weight of each action, decayed to `as_of`."""
        return self.actions.weights * np.exp2(-(self.as_of - self.actions.at) / AFFINITY_HALF_LIFE_MS)

    @cached_property
    def session_length(self) -> int:
        """Number of newest actions with no gap above 30 minutes between them or to `as_of`."""
        at = self.actions.at
        if not len(at) or self.as_of - at[0] > SESSION_GAP_MS:
            return 0
        breaks = np.flatnonzero(at[:-1] - at[1:] > SESSION_GAP_MS)
        return int(breaks[0]) + 1 if len(breaks) else len(at)

    @cached_property
    def session_began_at(self) -> int:
        """The session's first action, epoch ms; after `as_of` outside a session."""
        return int(self.actions.at[self.session_length - 1]) if self.session_length else self.as_of + 1

    @property
    def session_age_ms(self) -> int:
        """From the session's first action to `as_of`; 0 outside a session."""
        return max(self.as_of - self.session_began_at, 0)


@dataclass(frozen=True, slots=True)
class ItemBlock:
    """n items at an instant: float64[n, D] decayed values, int64[n, C] counts and catalogue columns of length n.

    Categories and brands are codes of the item table (-1: unknown); `stock` is NaN where unknown.
    """

    layout: Layout
    rows: Rows
    as_of: int
    decayed: Floats
    counts: Ints
    price_cents: Floats
    stock: Floats
    arrived_at: Ints
    category: Ints
    brand: Ints

    def value(self, aggregation: Aggregation) -> Floats:
        """float64[n] of one stored aggregation."""
        slot = self.layout.slot[aggregation]
        if isinstance(aggregation, Decayed):
            return np.asarray(self.decayed[:, slot])
        return np.asarray(self.counts[:, slot], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class PairView:
    """A user against n candidates. `category_of` and `brand_of` are the table's whole columns, by row."""

    user: UserView
    items: ItemBlock
    category_of: Ints
    brand_of: Ints

    def last_at(self, kind: EventType) -> Floats:
        """float64[n]: when the user last did this with each item, epoch ms; NaN where never."""
        rows, at = self.user.lists[kind]
        if not len(rows):
            return np.full(len(self.items.rows), np.nan)
        same = self.items.rows[:, None] == rows[None, :]
        newest = np.where(same, at[None, :], -1).max(axis=1).astype(np.float64)
        return np.where(newest < 0, np.nan, newest)

    def times_acted(self) -> Floats:
        """float64[n]: how many listed actions touch each item."""
        return np.asarray((self.items.rows[:, None] == self.user.actions.rows[None, :]).sum(axis=1), dtype=np.float64)

    def affinity(self, code_of: Ints, codes: Ints, *, session_only: bool = False) -> Floats:
        """float64[n] in [0, 1]: the share of the user's decayed taste that has each candidate's code.

        Items without a code, or that the table does not know, have a share too: that of no candidate.
        """
        taken = self.user.session_length if session_only else len(self.user.actions.rows)
        rows, taste = self.user.actions.rows[:taken], self.user.taste[:taken]
        total = taste.sum()
        if not total > 0:
            return np.zeros(len(codes))
        held = np.where(rows >= 0, code_of[rows], -1)
        mass = np.bincount(held + 1, weights=taste, minlength=int(codes.max(initial=-1)) + 2)
        mass[0] = 0.0
        return np.asarray(mass[codes + 1] / total)


@dataclass(frozen=True, slots=True)
class RetrievalBlock:
    """What retrieval said of n candidates: int16[n, S] ranks from 1 (0: not carried) and float32[n, S] scores.

    Scores are normalised per list: the best of a list has 1, what a source did not carry has 0.
    """

    ranks: NDArray[np.int16]
    scores: NDArray[np.float32]


class RequestView:
    """The request's instant in the shop's time zone."""

    def __init__(self, as_of: int, time_zone: ZoneInfo) -> None:
        """`as_of` in epoch ms."""
        self.as_of = as_of
        self.local: datetime = from_ms(as_of).astimezone(time_zone)

    @property
    def hour(self) -> float:
        """Hour of the day with its fraction, shop-local."""
        return self.local.hour + self.local.minute / 60

    @property
    def weekday(self) -> float:
        """Day of the week with its fraction, Monday 0, shop-local."""
        return self.local.weekday() + self.hour / 24


def user_lists(
    state: EntityState, row_of: Mapping[int, int], kinds: Mapping[EventType, LastK]
) -> dict[EventType, tuple[Rows, Ints]]:
    """Resolve the item hashes of a user's lists to rows of an item table."""
    resolved: dict[EventType, tuple[Rows, Ints]] = {}
    for kind, aggregation in kinds.items():
        entries = state.lists[state.layout.slot[aggregation]]
        rows = np.array([row_of.get(item, -1) for _, _, item in entries], dtype=np.int64)
        resolved[kind] = (rows, np.array([at for at, _, _ in entries], dtype=np.int64))
    return resolved
