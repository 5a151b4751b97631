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
from shared.features.aggregations import DAY_MS, HOUR_MS, Aggregation, Decayed, Floats, Ints, LastK, Layout
from shared.features.local_time import local_ms, time_of_day_ms, weekdays
from shared.features.state import EntityState

Rows = NDArray[np.int64]

SESSION_GAP_MS = 30 * 60_000
ACTION_WEIGHT = {EventType.VIEW: 1.0, EventType.CART: 3.0, EventType.PURCHASE: 5.0}
"""How much more an action says about taste than a view does."""
AFFINITY_HALF_LIFE_MS = 14 * DAY_MS
SAME_HOUR_MS = 2 * HOUR_MS
"""How far two times of day may lie apart and still be the same habit."""


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

    def __init__(
        self, state: EntityState, as_of: int, lists: dict[EventType, tuple[Rows, Ints]], time_zone: ZoneInfo
    ) -> None:
        """`lists[type]` = (rows, effective times) of the newest events of that type, ascending in time.

        `time_zone` is the shop's: by its clock habits are told.
        """
        self.state = state
        self.as_of = max(as_of, state.newest_at)
        self.lists = lists
        self.time_zone = time_zone

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
        """All listed actions (what has an `ACTION_WEIGHT`), newest first.

        Of one instant the heavier action comes first, then the later in its list: never an order of table rows,
        which differs from process to process.
        """
        lists = [self.lists[kind] for kind in ACTION_WEIGHT]
        rows = np.concatenate([rows for rows, _ in lists])
        at = np.concatenate([at for _, at in lists])
        weights = np.repeat(list(ACTION_WEIGHT.values()), [len(rows) for rows, _ in lists])
        places = np.concatenate([np.arange(len(rows)) for rows, _ in lists])
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

    @cached_property
    def _past_local(self) -> Ints:
        """int64[m + 1]: the shop's clock at each action before the current session, and at `as_of`."""
        return local_ms(np.append(self.actions.at[self.session_length :], self.as_of), self.time_zone)

    def hour_habit(self) -> float:
        """Share in [0, 1] of her taste before the current session that fell within 2 h of this time of day.

        NaN for someone without a past.
        """
        times = time_of_day_ms(self._past_local)
        apart = np.abs(times[:-1] - times[-1])
        return self._past_share(np.minimum(apart, DAY_MS - apart) <= SAME_HOUR_MS)

    def weekday_habit(self) -> float:
        """As `hour_habit`, of this day of the week."""
        days = weekdays(self._past_local)
        return self._past_share(days[:-1] == days[-1])

    def _past_share(self, chosen: NDArray[np.bool_]) -> float:
        taste = self.taste[self.session_length :]
        total = float(taste.sum())
        return float(taste[chosen].sum()) / total if total > 0 else float("nan")


@dataclass(frozen=True)
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

    @cached_property
    def log_price(self) -> Floats:
        """float64[n]: natural logarithm of the price in cents; NaN where no price is known."""
        return np.where(self.price_cents > 0, np.log(np.maximum(self.price_cents, 1.0)), np.nan)


@dataclass(frozen=True)
class PairView:
    """A user against n candidates. `category_of` and `brand_of` are the table's whole columns, by row."""

    user: UserView
    items: ItemBlock
    category_of: Ints
    brand_of: Ints

    def last_at(self, kind: EventType) -> Floats:
        """float64[n]: when the user last did this with each item, epoch ms; NaN where never."""
        rows, at = self.user.lists[kind]
        found, places = self._meet(rows)
        newest = np.full(len(self._distinct[0]), np.nan)
        newest[places] = at[found]  # ascending: of several the last stays
        return newest[self._distinct[1]]

    def times_acted(self, *, session_only: bool = False) -> Floats:
        """float64[n]: how many listed actions (of the current session) touch each item."""
        _, places = self._meet(self._acted(session_only=session_only))
        times = np.bincount(places, minlength=len(self._distinct[0]))
        return times[self._distinct[1]].astype(np.float64)

    def session_reciprocal_position(self) -> Floats:
        """float64[n]: 1 for the item of the session's last action, 1/2 for that of the one before; 0 where none."""
        found, places = self._meet(self._acted(session_only=True))
        nearest = np.zeros(len(self._distinct[0]))
        nearest[places[::-1]] = 1.0 / (1.0 + found[::-1])
        return nearest[self._distinct[1]]

    def matches_last(self, code_of: Ints, codes: Ints) -> NDArray[np.bool_]:
        """bool[n]: has each candidate the code of the item last acted on? False where either has none."""
        rows = self.user.actions.rows[:1]
        last = int(code_of[rows[0]]) if len(rows) and rows[0] >= 0 else -1
        return np.asarray((codes == last) & (last >= 0))

    def affinity(self, code_of: Ints, codes: Ints, *, session_only: bool = False) -> Floats:
        """float64[n] in [0, 1]: the share of the user's decayed taste that has each candidate's code.

        Items without a code, or that the table does not know, have a share too: that of no candidate.
        """
        rows = self._acted(session_only=session_only)
        taste = self.user.taste[: len(rows)]
        total = taste.sum()
        if not total > 0:
            return np.zeros(len(codes))
        held = np.where(rows >= 0, code_of[rows], -1)
        mass = np.bincount(held + 1, weights=taste, minlength=int(codes.max(initial=-1)) + 2)
        mass[0] = 0.0
        return np.asarray(mass[codes + 1] / total)

    def _acted(self, *, session_only: bool) -> Rows:
        rows = self.user.actions.rows
        return rows[: self.user.session_length] if session_only else rows

    @cached_property
    def _distinct(self) -> tuple[Rows, Ints]:
        """The candidates' distinct rows, ascending, and each candidate's place among them."""
        rows, inverse = np.unique(self.items.rows, return_inverse=True)
        return rows, inverse

    def _meet(self, rows: Rows) -> tuple[Ints, Ints]:
        """Which of these rows are candidates, in their order, and their places among the distinct rows."""
        distinct = self._distinct[0]
        if not len(distinct):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        places = np.minimum(np.searchsorted(distinct, rows), len(distinct) - 1)
        found = np.flatnonzero(distinct[places] == rows)
        return found, places[found]


@dataclass(frozen=True)
class RetrievalBlock:
    """What retrieval said of n candidates: int16[n, S] ranks from 1 (0: not carried) and float32[n, S] scores.

    Scores are normalised per list: the best of a list has 1, what a source did not carry has 0. `covisitation` is
    float32[n, 2]: the score, so normalised, in the co-occurrence list of the last click, and the sum over those of
    the last clicks (`shared.candidates.covisitation`). `text` is float32[n]: how well the words of a search fit, over
    the best fit among the candidates; 0 on pages that no search made.
    """

    ranks: NDArray[np.int16]
    scores: NDArray[np.float32]
    covisitation: NDArray[np.float32]
    text: NDArray[np.float32]

    @classmethod
    def silent(cls, count: int, sources: int) -> RetrievalBlock:
        """`count` candidates of which none of the sources said anything."""
        return cls(
            np.zeros((count, sources), np.int16),
            np.zeros((count, sources), np.float32),
            np.zeros((count, 2), np.float32),
            np.zeros(count, np.float32),
        )

    @cached_property
    def reciprocal_ranks(self) -> Floats:
        """float64[S, n]: 1 / rank; 0 where a source does not carry the item."""
        ranks = self.ranks.T.astype(np.float64)
        return np.divide(1.0, ranks, out=np.zeros_like(ranks), where=ranks > 0)


class RequestView:
    """The request's instant in the shop's time zone, and where it came from, as far as it says so."""

    def __init__(self, as_of: int, time_zone: ZoneInfo, device: str | None = None, surface: str | None = None) -> None:
        """`as_of` in epoch ms; `device` and `surface` in the shop's own words."""
        self.as_of = as_of
        self.local: datetime = from_ms(as_of).astimezone(time_zone)
        self.device = device
        self.surface = surface

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
        items, at = state.list_columns(state.layout.slot[aggregation])
        resolved[kind] = (np.array([row_of.get(item, -1) for item in items], dtype=np.int64), at)
    return resolved
