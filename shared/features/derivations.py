"""How features are computed from views: pure functions, and factories of them for given stored aggregations.

Nothing is declared here: `shared.features.definitions` says which feature uses which derivation over which
aggregations. A function of a user or a request gives a scalar, one of items, pairs or retrieval an array of length n;
NaN stands for "not known" and becomes the feature's default.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from shared.events import EventType
from shared.features.aggregations import DAY_MS, HOUR_MS, NEVER, Decayed, Earliest, Floats
from shared.features.views import ItemBlock, PairView, RequestView, RetrievalBlock, UserView

_NEXT_TO_NOTHING = 1e-9
"""Below this decayed weight there is no mean to speak of."""


def weighted_mean(total: Decayed, weight: Decayed) -> Callable[[UserView], float]:
    """`total` over `weight` of a user; NaN where nothing weighs."""

    def mean(user: UserView) -> float:
        held = user.value(weight)
        return user.value(total) / held if held > _NEXT_TO_NOTHING else math.nan

    return mean


def weighted_spread(squares: Decayed, total: Decayed, weight: Decayed) -> Callable[[UserView], float]:
    """Standard deviation from decayed sums of squares, values and weights of a user; NaN where nothing weighs."""
    mean_of = weighted_mean(total, weight)
    mean_square_of = weighted_mean(squares, weight)

    def spread(user: UserView) -> float:
        mean, mean_square = mean_of(user), mean_square_of(user)
        # A difference of close floats may fall below zero; NaN stays NaN.
        return mean if math.isnan(mean) else math.sqrt(max(mean_square - mean * mean, 0.0))

    return spread


def action_recency_hours(user: UserView) -> float:
    """Hours from the newest listed action to the view's instant; NaN without one."""
    at = user.actions.at
    return (user.as_of - int(at[0])) / HOUR_MS if len(at) else math.nan


def tenure_days(first_seen: Earliest) -> Callable[[UserView], float]:
    """Days from the user's first action to the view's instant; 0 where there is none."""

    def days(user: UserView) -> float:
        first_at = user.state.earliest[user.state.layout.slot[first_seen]]
        return (user.as_of - int(first_at)) / DAY_MS if first_at != NEVER else 0.0

    return days


def smoothed_rate(hits: Decayed, trials: Decayed, prior: float, strength: float) -> Callable[[ItemBlock], Floats]:
    """Posterior mean of a rate under a Beta(prior * strength, (1 - prior) * strength) prior; unbounded above.

    `prior` is the mean in (0, 1), `strength` the number of trials it weighs as much as.
    """

    def rate(items: ItemBlock) -> Floats:
        return (items.value(hits) + prior * strength) / (items.value(trials) + strength)

    return rate


def momentum(day: Decayed, week: Decayed) -> Callable[[ItemBlock], Floats]:
    """Events of the last day against the daily mean of the last week, both smoothed by one event."""
    return lambda items: (items.value(day) + 1.0) / (items.value(week) / 7 + 1.0)


def log_price(items: ItemBlock) -> Floats:
    """Natural logarithm of the price in cents; NaN where no price is known."""
    return items.log_price


def log_price_against_mean(total: Decayed, weight: Decayed) -> Callable[[ItemBlock], Floats]:
    """Log price less the mean log price at which the item was touched; NaN where either is not known."""

    def difference(items: ItemBlock) -> Floats:
        held = items.value(weight)
        known = held > _NEXT_TO_NOTHING
        mean = np.divide(items.value(total), held, out=np.full_like(held, np.nan), where=known)
        return items.log_price - mean

    return difference


def stock_up_to(most: int) -> Callable[[ItemBlock], Floats]:
    """Units in stock, at most `most`; NaN where unknown."""
    return lambda items: np.minimum(items.stock, most)


def age_days(items: ItemBlock) -> Floats:
    """Days since the item arrived; NaN where that is not known."""
    return np.where(items.arrived_at == NEVER, np.nan, (items.as_of - items.arrived_at) / DAY_MS)


def hours_since(kind: EventType) -> Callable[[PairView], Floats]:
    """Hours since the user last did this with each item; NaN where never."""
    return lambda pair: (pair.user.as_of - pair.last_at(kind)) / HOUR_MS


def category_affinity(pair: PairView) -> Floats:
    """Share in [0, 1] of the user's decayed actions that lies in each item's category."""
    return pair.affinity(pair.category_of, pair.items.category)


def brand_affinity(pair: PairView) -> Floats:
    """Share in [0, 1] of the user's decayed actions that has each item's brand."""
    return pair.affinity(pair.brand_of, pair.items.brand)


def session_category_affinity(pair: PairView) -> Floats:
    """Share in [0, 1] of the current session's decayed actions that lies in each item's category."""
    return pair.affinity(pair.category_of, pair.items.category, session_only=True)


def session_action_count(pair: PairView) -> Floats:
    """How many actions of the current session touch each item."""
    return pair.times_acted(session_only=True)


def last_category_match(pair: PairView) -> ArrayLike:
    """Has each item the category of the item the user last acted on?"""
    return pair.matches_last(pair.category_of, pair.items.category)


def last_brand_match(pair: PairView) -> ArrayLike:
    """Has each item the brand of the item the user last acted on?"""
    return pair.matches_last(pair.brand_of, pair.items.brand)


def price_distance(total: Decayed, weight: Decayed) -> Callable[[PairView], Floats]:
    """Log price of each item less the user's mean; NaN where either is not known."""
    mean_of = weighted_mean(total, weight)
    return lambda pair: pair.items.log_price - mean_of(pair.user)


def reciprocal_rank(source: int) -> Callable[[RetrievalBlock], ArrayLike]:
    """1 / rank in the list of one source (its column); 0 where it does not carry the item."""
    return lambda block: block.reciprocal_ranks[source]


def retrieval_score(source: int) -> Callable[[RetrievalBlock], ArrayLike]:
    """Score of one source (its column) over its list's best; 0 where it does not carry the item."""
    return lambda block: block.scores[:, source]


def sources_count(block: RetrievalBlock) -> ArrayLike:
    """How many sources carry each item."""
    return (block.ranks > 0).sum(axis=1)


def covisitation(column: int) -> Callable[[RetrievalBlock], ArrayLike]:
    """Co-visitation with the last click (column 0) or the last clicks (1); 0 where the lists do not carry the item."""
    return lambda block: block.covisitation[:, column]


def text_score(block: RetrievalBlock) -> ArrayLike:
    """How well the words of a search fit each candidate; 0 where nothing was searched."""
    return block.text


def hour_of_day(wave: Callable[[float], float]) -> Callable[[RequestView], float]:
    """`wave` (sine or cosine) of the shop-local hour as an angle: midnight lies next to 23:59."""
    return lambda request: wave(2 * math.pi * (request.hour / 24))


def day_of_week(wave: Callable[[float], float]) -> Callable[[RequestView], float]:
    """`wave` (sine or cosine) of the shop-local day of the week as an angle: Sunday lies next to Monday."""
    return lambda request: wave(2 * math.pi * (request.weekday / 7))


def code_of(text: Callable[[RequestView], str | None], vocabulary: tuple[str, ...]) -> Callable[[RequestView], float]:
    """The code of one of the request's texts: NaN where it is not given, 1 for an unknown word, from 2 the known ones.

    Case does not matter.
    """
    codes = {word: float(place) for place, word in enumerate(vocabulary, start=2)}

    def code(request: RequestView) -> float:
        word = text(request)
        return math.nan if word is None else codes.get(word.casefold(), 1.0)

    return code
