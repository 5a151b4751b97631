"""The only place a feature is declared.

A feature is one `Feature(...)`: who it describes, what it is called, and either the stored aggregation it reads or
a function of the views. State layout, vector schema, training columns and documentation all follow from this list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from shared.events import EventType
from shared.features.aggregations import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    NEVER,
    Aggregation,
    Amount,
    Count,
    Decayed,
    Earliest,
    Floats,
    LastK,
    Layout,
)
from shared.features.views import ItemBlock, PairView, RequestView, RetrievalBlock, UserView


class Entity(StrEnum):
    """What a feature describes."""

    USER = "user"
    ITEM = "item"
    PAIR = "pair"
    RETRIEVAL = "retrieval"
    REQUEST = "request"


class Retrieval(StrEnum):
    """The candidate sources, in the order of their bits and of the retrieval block's columns."""

    ALS = "als"
    COOCCURRENCE = "cooccurrence"
    SIMILAR = "similar"
    BOUGHT_TOGETHER = "bought_together"
    REPEAT = "repeat"
    CATEGORY = "category"
    POPULAR = "popular"
    ARRIVALS = "arrivals"


@dataclass(frozen=True)
class Feature:
    """One declaration. `value` maps the entity's view to a scalar or an array of length n; NaN becomes `default`."""

    name: str
    entity: Entity
    description: str
    value: Callable[[Any], ArrayLike]
    aggregations: tuple[Aggregation, ...] = ()
    default: float = 0.0
    dtype: str = "float32"


SPANS: Final[Mapping[str, int]] = {"1h": HOUR_MS, "1d": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS}
ACTIONS: Final = (EventType.VIEW, EventType.CART, EventType.PURCHASE)
LISTS: Final[Mapping[EventType, LastK]] = {
    EventType.VIEW: LastK((EventType.VIEW,), 50),
    EventType.CART: LastK((EventType.CART,), 50),
    EventType.PURCHASE: LastK((EventType.PURCHASE,), 400),
}
LONG_AGO_HOURS: Final = 24.0 * 400

FIRST_SEEN: Final = Earliest(ACTIONS)
PRICED: Final = Decayed(ACTIONS, SPANS["30d"], Amount.PRICED)
LOG_PRICE: Final = Decayed(ACTIONS, SPANS["30d"], Amount.LOG_PRICE)
LOG_PRICE_SQUARED: Final = Decayed(ACTIONS, SPANS["30d"], Amount.LOG_PRICE_SQUARED)
SPENT: Final = Decayed((EventType.PURCHASE,), SPANS["30d"], Amount.CENTS)


def decayed(kind: EventType, span: str) -> Decayed:
    """The decayed count of one event type over one span."""
    return Decayed((kind,), SPANS[span])


def _stored(entity: Entity, name: str, aggregation: Aggregation, description: str) -> Feature:
    return Feature(name, entity, description, lambda view: view.value(aggregation), (aggregation,))


def _decayed_counts(entity: Entity) -> list[Feature]:
    return [
        _stored(
            entity,
            f"{entity}_{kind}_decayed_{span}",
            decayed(kind, span),
            f"{kind}s of the {entity}, halved every {span}",
        )
        for kind in ACTIONS
        for span in SPANS
    ]


def _counts(entity: Entity) -> list[Feature]:
    return [
        _stored(entity, f"{entity}_{kind}_count_ever", Count((kind,)), f"{kind}s of the {entity} ever")
        for kind in ACTIONS
    ]


def _price_level(user: UserView) -> float:
    weight = user.value(PRICED)
    return user.value(LOG_PRICE) / weight if weight > 1e-9 else math.nan


def _price_spread(user: UserView) -> float:
    weight = user.value(PRICED)
    if weight <= 1e-9:
        return math.nan
    mean = user.value(LOG_PRICE) / weight
    return math.sqrt(max(user.value(LOG_PRICE_SQUARED) / weight - mean * mean, 0.0))


def _recency_hours(user: UserView) -> float:
    at = user.actions.at
    return (user.as_of - int(at[0])) / HOUR_MS if len(at) else math.nan


def _tenure_days(user: UserView) -> float:
    first_at = user.state.earliest[user.state.layout.slot[FIRST_SEEN]]
    return (user.as_of - int(first_at)) / DAY_MS if first_at != NEVER else 0.0


USER_FEATURES: Final = [
    *_decayed_counts(Entity.USER),
    *_counts(Entity.USER),
    _stored(Entity.USER, "user_purchase_decayed_cents_30d", SPENT, "money spent in cents, halved every 30 d"),
    Feature(
        "user_price_mean_30d",
        Entity.USER,
        "mean log price (cents) of what the user touched",
        _price_level,
        (PRICED, LOG_PRICE),
        default=-1.0,
    ),
    Feature(
        "user_price_spread_30d",
        Entity.USER,
        "standard deviation of the log price of what the user touched",
        _price_spread,
        (PRICED, LOG_PRICE, LOG_PRICE_SQUARED),
        default=-1.0,
    ),
    Feature(
        "user_action_recency_hours",
        Entity.USER,
        "hours since the last view, cart or purchase",
        _recency_hours,
        tuple(LISTS.values()),
        default=LONG_AGO_HOURS,
    ),
    Feature("user_tenure_days", Entity.USER, "days since the first action", _tenure_days, (FIRST_SEEN,)),
    Feature(
        "user_session_length",
        Entity.USER,
        "actions in the current session (30 min gap)",
        lambda user: user.session_length,
        tuple(LISTS.values()),
    ),
    Feature(
        "user_session_age_minutes",
        Entity.USER,
        "minutes since the current session began",
        lambda user: user.session_age_ms / MINUTE_MS,
        tuple(LISTS.values()),
    ),
]


def _rate(kind: EventType, per: EventType, prior: float, strength: float) -> Callable[[ItemBlock], Floats]:
    """Posterior mean of a Beta(prior * strength, (1 - prior) * strength) rate over 30-day decayed counts."""
    hits, trials = decayed(kind, "30d"), decayed(per, "30d")

    def rate(items: ItemBlock) -> Floats:
        return (items.value(hits) + prior * strength) / (items.value(trials) + strength)

    return rate


def _momentum(items: ItemBlock) -> Floats:
    """Views of the last day against the daily mean of the last week, both smoothed."""
    return (items.value(decayed(EventType.VIEW, "1d")) + 1.0) / (items.value(decayed(EventType.VIEW, "7d")) / 7 + 1.0)


def _price_against_mean(items: ItemBlock) -> Floats:
    weight = items.value(PRICED)
    known = (weight > 1e-9) & (items.price_cents > 0)
    mean = np.divide(items.value(LOG_PRICE), weight, out=np.zeros_like(weight), where=known)
    return np.where(known, np.log(np.maximum(items.price_cents, 1.0)) - mean, np.nan)


def _age_days(items: ItemBlock) -> Floats:
    return np.where(items.arrived_at == NEVER, np.nan, (items.as_of - items.arrived_at) / DAY_MS)


ITEM_FEATURES: Final = [
    *_decayed_counts(Entity.ITEM),
    *_counts(Entity.ITEM),
    Feature(
        "item_cart_rate_30d",
        Entity.ITEM,
        "carts per view, smoothed by a Beta prior",
        _rate(EventType.CART, EventType.VIEW, 0.06, 20.0),
        (decayed(EventType.CART, "30d"), decayed(EventType.VIEW, "30d")),
    ),
    Feature(
        "item_purchase_rate_30d",
        Entity.ITEM,
        "purchases per view, smoothed by a Beta prior",
        _rate(EventType.PURCHASE, EventType.VIEW, 0.02, 20.0),
        (decayed(EventType.PURCHASE, "30d"), decayed(EventType.VIEW, "30d")),
    ),
    Feature(
        "item_view_momentum_7d",
        Entity.ITEM,
        "views of the last day against the week's daily mean",
        _momentum,
        (decayed(EventType.VIEW, "1d"), decayed(EventType.VIEW, "7d")),
    ),
    Feature(
        "item_price_log",
        Entity.ITEM,
        "log of the price in cents",
        lambda items: np.where(items.price_cents > 0, np.log(np.maximum(items.price_cents, 1.0)), np.nan),
        default=-1.0,
    ),
    Feature(
        "item_price_against_mean_30d",
        Entity.ITEM,
        "log price against the mean log price at which it was touched",
        _price_against_mean,
        (PRICED, LOG_PRICE),
    ),
    Feature("item_age_days", Entity.ITEM, "days since the item arrived", _age_days, default=-1.0),
    Feature(
        "item_stock",
        Entity.ITEM,
        "units in stock, at most 100",
        lambda items: np.minimum(items.stock, 100),
        default=-1.0,
    ),
]


def _hours_since(kind: EventType) -> Callable[[PairView], Floats]:
    return lambda pair: (pair.user.as_of - pair.last_at(kind)) / HOUR_MS


def _price_distance(pair: PairView) -> Floats:
    prices = np.where(pair.items.price_cents > 0, np.log(np.maximum(pair.items.price_cents, 1.0)), np.nan)
    return prices - _price_level(pair.user)


PAIR_FEATURES: Final = [
    *(
        Feature(
            f"pair_{kind}_recency_hours",
            Entity.PAIR,
            f"hours since this user's last {kind} of this item",
            _hours_since(kind),
            (LISTS[kind],),
            default=LONG_AGO_HOURS,
        )
        for kind in ACTIONS
    ),
    Feature(
        "pair_action_count_last",
        Entity.PAIR,
        "times the item is among the user's last actions",
        PairView.times_acted,
        tuple(LISTS.values()),
    ),
    Feature(
        "pair_category_affinity_14d",
        Entity.PAIR,
        "share of the user's decayed actions in the item's category",
        lambda pair: pair.affinity(pair.category_of, pair.items.category),
        tuple(LISTS.values()),
    ),
    Feature(
        "pair_brand_affinity_14d",
        Entity.PAIR,
        "share of the user's decayed actions with the item's brand",
        lambda pair: pair.affinity(pair.brand_of, pair.items.brand),
        tuple(LISTS.values()),
    ),
    Feature(
        "pair_session_category_affinity",
        Entity.PAIR,
        "share of the current session in the item's category",
        lambda pair: pair.affinity(pair.category_of, pair.items.category, session_only=True),
        tuple(LISTS.values()),
    ),
    Feature(
        "pair_price_distance_30d",
        Entity.PAIR,
        "log price of the item less the user's mean",
        _price_distance,
        (PRICED, LOG_PRICE),
    ),
]


def _reciprocal_rank(source: int) -> Callable[[RetrievalBlock], Floats]:
    def value(block: RetrievalBlock) -> Floats:
        ranks = block.ranks[:, source].astype(np.float64)
        return np.divide(1.0, ranks, out=np.zeros_like(ranks), where=ranks > 0)

    return value


def _score(source: int) -> Callable[[RetrievalBlock], ArrayLike]:
    return lambda block: block.scores[:, source]


RETRIEVAL_FEATURES: Final = [
    *(
        Feature(
            f"retrieval_{source}_reciprocal_rank",
            Entity.RETRIEVAL,
            f"1 / rank in the list of {source}; 0 where it is not",
            _reciprocal_rank(column),
        )
        for column, source in enumerate(Retrieval)
    ),
    *(
        Feature(
            f"retrieval_{source}_score",
            Entity.RETRIEVAL,
            f"score of {source} over its list's best",
            _score(column),
        )
        for column, source in enumerate(Retrieval)
    ),
    Feature(
        "retrieval_sources_count",
        Entity.RETRIEVAL,
        "number of sources that carry the item",
        lambda block: (block.ranks > 0).sum(axis=1),
    ),
]


def _circular(angle: Callable[[RequestView], float], wave: Callable[[float], float]) -> Callable[[RequestView], float]:
    return lambda request: wave(2 * math.pi * angle(request))


REQUEST_FEATURES: Final = [
    Feature("request_hour_sin", Entity.REQUEST, "hour of day", _circular(lambda request: request.hour / 24, math.sin)),
    Feature("request_hour_cos", Entity.REQUEST, "hour of day", _circular(lambda request: request.hour / 24, math.cos)),
    Feature(
        "request_weekday_sin", Entity.REQUEST, "day of week", _circular(lambda request: request.weekday / 7, math.sin)
    ),
    Feature(
        "request_weekday_cos", Entity.REQUEST, "day of week", _circular(lambda request: request.weekday / 7, math.cos)
    ),
]

FEATURES: Final = (
    *USER_FEATURES,
    *ITEM_FEATURES,
    *PAIR_FEATURES,
    *RETRIEVAL_FEATURES,
    *REQUEST_FEATURES,
)


def layout_of(entities: set[Entity], features: tuple[Feature, ...] = FEATURES) -> Layout:
    """The stored slots that features of these entities read."""
    return Layout(one for feature in features if feature.entity in entities for one in feature.aggregations)


USER_LAYOUT: Final = layout_of({Entity.USER, Entity.PAIR})
ITEM_LAYOUT: Final = layout_of({Entity.ITEM})

STATE_VERSION: Final = blake2b(repr((USER_LAYOUT, ITEM_LAYOUT)).encode(), digest_size=4).hexdigest()
"""Names the aggregations that state in Redis was folded with."""
