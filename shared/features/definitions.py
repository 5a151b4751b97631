"""The only place a feature is declared.

A feature is one `Feature(...)`: who it describes, what it is called, and either the stored aggregation it reads or
a function of the views, most of them from `derivations.py`. State layout, vector schema, training columns and
documentation all follow from this list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from shared.events import EventType
from shared.features import derivations as derive
from shared.features.aggregations import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    Aggregation,
    Amount,
    Count,
    Decayed,
    Earliest,
    LastK,
    Layout,
)
from shared.features.declaration import Entity, Feature
from shared.features.state import FORMAT
from shared.features.views import PairView, UserView


class Retrieval(StrEnum):
    """The candidate sources, in the order of their bits and of the retrieval block's columns."""

    ALS = "als"
    COOCCURRENCE = "cooccurrence"
    TRANSITIONS = "transitions"
    ATTRIBUTES = "attributes"
    REPEAT = "repeat"
    POPULAR = "popular"
    ARRIVALS = "arrivals"


SPANS: Final[Mapping[str, int]] = {"1h": HOUR_MS, "1d": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS}
ACTIONS: Final = (EventType.VIEW, EventType.CART, EventType.PURCHASE)
LISTS: Final[Mapping[EventType, LastK]] = {
    EventType.VIEW: LastK((EventType.VIEW,), 50),
    EventType.CART: LastK((EventType.CART,), 50),
    EventType.PURCHASE: LastK((EventType.PURCHASE,), 400),
    EventType.REMOVE_FROM_CART: LastK((EventType.REMOVE_FROM_CART,), 50),
}
TOUCHED: Final = tuple(LISTS[kind] for kind in ACTIONS)
"""What sessions, affinities and habits are computed from."""
LONG_AGO_HOURS: Final = 24.0 * 400
DEVICES: Final = ("desktop", "mobile", "tablet", "app")
SURFACES: Final = ("home", "category", "search", "product", "cart", "account", "email")

FIRST_SEEN: Final = Earliest(ACTIONS)
PRICED: Final = Decayed(ACTIONS, SPANS["30d"], Amount.PRICED)
LOG_PRICE: Final = Decayed(ACTIONS, SPANS["30d"], Amount.LOG_PRICE)
LOG_PRICE_SQUARED: Final = Decayed(ACTIONS, SPANS["30d"], Amount.LOG_PRICE_SQUARED)


def decayed(kind: EventType, span: str) -> Decayed:
    """The decayed count of one event type over one span."""
    return Decayed((kind,), SPANS[span])


VIEWS_1D: Final = decayed(EventType.VIEW, "1d")
VIEWS_7D: Final = decayed(EventType.VIEW, "7d")
VIEWS_30D: Final = decayed(EventType.VIEW, "30d")
CARTS_30D: Final = decayed(EventType.CART, "30d")
PURCHASES_30D: Final = decayed(EventType.PURCHASE, "30d")


def _stored(entity: Entity, name: str, aggregation: Aggregation, description: str) -> Feature:
    return Feature(name, entity, description, lambda view: view.value(aggregation), (aggregation,))


def _decayed_counts(entity: Entity, kinds: tuple[EventType, ...] = ACTIONS) -> list[Feature]:
    return [
        _stored(
            entity,
            f"{entity}_{kind}_decayed_{span}",
            decayed(kind, span),
            f"{_said(kind)}s of the {entity}, halved every {span}",
        )
        for kind in kinds
        for span in SPANS
    ]


def _decayed_cents(kind: EventType, span: str, meaning: str) -> Feature:
    return _stored(
        Entity.USER,
        f"user_{kind}_decayed_cents_{span}",
        Decayed((kind,), SPANS[span], Amount.CENTS),
        f"{meaning} in cents, halved every {span}",
    )


def _pair_recency(kind: EventType) -> Feature:
    return Feature(
        f"pair_{kind}_recency_hours",
        Entity.PAIR,
        f"hours since this user's last {_said(kind)} of this item",
        derive.hours_since(kind),
        (LISTS[kind],),
        default=LONG_AGO_HOURS,
    )


def _said(kind: EventType) -> str:
    return "cart removal" if kind is EventType.REMOVE_FROM_CART else kind


def _counts(entity: Entity) -> list[Feature]:
    return [
        _stored(entity, f"{entity}_{kind}_count_ever", Count((kind,)), f"{kind}s of the {entity} ever")
        for kind in ACTIONS
    ]


USER_FEATURES: Final = [
    *_decayed_counts(Entity.USER),
    *_counts(Entity.USER),
    _decayed_cents(EventType.PURCHASE, "30d", "money spent"),
    Feature(
        "user_price_mean_30d",
        Entity.USER,
        "mean log price (cents) of what the user touched",
        derive.weighted_mean(LOG_PRICE, PRICED),
        (PRICED, LOG_PRICE),
        default=-1.0,
    ),
    Feature(
        "user_price_spread_30d",
        Entity.USER,
        "standard deviation of the log price of what the user touched",
        derive.weighted_spread(LOG_PRICE_SQUARED, LOG_PRICE, PRICED),
        (PRICED, LOG_PRICE, LOG_PRICE_SQUARED),
        default=-1.0,
    ),
    Feature(
        "user_action_recency_hours",
        Entity.USER,
        "hours since the last view, cart or purchase",
        derive.action_recency_hours,
        TOUCHED,
        default=LONG_AGO_HOURS,
    ),
    Feature(
        "user_tenure_days", Entity.USER, "days since the first action", derive.tenure_days(FIRST_SEEN), (FIRST_SEEN,)
    ),
    Feature(
        "user_session_length",
        Entity.USER,
        "actions in the current session (30 min gap)",
        lambda user: user.session_length,
        TOUCHED,
    ),
    Feature(
        "user_session_age_minutes",
        Entity.USER,
        "minutes since the current session began",
        lambda user: user.session_age_ms / MINUTE_MS,
        TOUCHED,
    ),
    *_decayed_counts(Entity.USER, (EventType.REMOVE_FROM_CART,)),
    *(_decayed_cents(EventType.VIEW, span, "prices of what the user viewed") for span in SPANS),
    *(_decayed_cents(EventType.CART, span, "worth of what the user put into the cart") for span in SPANS),
    *(_decayed_cents(EventType.PURCHASE, span, "money spent") for span in ("1h", "1d", "7d")),
    _stored(Entity.USER, "user_price_weight_30d", PRICED, "how many priced actions the price level rests on"),
    Feature(
        "user_hour_habit_14d",
        Entity.USER,
        "share of the user's decayed actions before this session within 2 h of this time of day, by the shop's clock",
        UserView.hour_habit,
        TOUCHED,
        default=-1.0,
    ),
    Feature(
        "user_weekday_habit_14d",
        Entity.USER,
        "share of the user's decayed actions before this session on this day of the week, by the shop's clock",
        UserView.weekday_habit,
        TOUCHED,
        default=-1.0,
    ),
]


ITEM_FEATURES: Final = [
    *_decayed_counts(Entity.ITEM),
    *_counts(Entity.ITEM),
    Feature(
        "item_cart_rate_30d",
        Entity.ITEM,
        "carts per view, smoothed by a Beta prior",
        derive.smoothed_rate(CARTS_30D, VIEWS_30D, 0.06, 20.0),
        (CARTS_30D, VIEWS_30D),
    ),
    Feature(
        "item_purchase_rate_30d",
        Entity.ITEM,
        "purchases per view, smoothed by a Beta prior",
        derive.smoothed_rate(PURCHASES_30D, VIEWS_30D, 0.02, 20.0),
        (PURCHASES_30D, VIEWS_30D),
    ),
    Feature(
        "item_view_momentum_7d",
        Entity.ITEM,
        "views of the last day against the week's daily mean",
        derive.momentum(VIEWS_1D, VIEWS_7D),
        (VIEWS_1D, VIEWS_7D),
    ),
    Feature(
        "item_price_log",
        Entity.ITEM,
        "log of the price in cents",
        derive.log_price,
        default=-1.0,
    ),
    Feature(
        "item_price_against_mean_30d",
        Entity.ITEM,
        "log price against the mean log price at which it was touched",
        derive.log_price_against_mean(LOG_PRICE, PRICED),
        (PRICED, LOG_PRICE),
    ),
    Feature("item_age_days", Entity.ITEM, "days since the item arrived", derive.age_days, default=-1.0),
    Feature(
        "item_stock",
        Entity.ITEM,
        "units in stock, at most 100",
        derive.stock_up_to(100),
        default=-1.0,
    ),
]


PAIR_FEATURES: Final = [
    *(_pair_recency(kind) for kind in ACTIONS),
    Feature(
        "pair_action_count_last",
        Entity.PAIR,
        "times the item is among the user's last actions",
        PairView.times_acted,
        TOUCHED,
    ),
    Feature(
        "pair_category_affinity_14d",
        Entity.PAIR,
        "share of the user's decayed actions in the item's category",
        derive.category_affinity,
        TOUCHED,
    ),
    Feature(
        "pair_brand_affinity_14d",
        Entity.PAIR,
        "share of the user's decayed actions with the item's brand",
        derive.brand_affinity,
        TOUCHED,
    ),
    Feature(
        "pair_session_category_affinity",
        Entity.PAIR,
        "share of the current session in the item's category",
        derive.session_category_affinity,
        TOUCHED,
    ),
    Feature(
        "pair_price_distance_30d",
        Entity.PAIR,
        "log price of the item less the user's mean",
        derive.price_distance(LOG_PRICE, PRICED),
        (PRICED, LOG_PRICE),
    ),
    _pair_recency(EventType.REMOVE_FROM_CART),
    Feature(
        "pair_session_action_count",
        Entity.PAIR,
        "times the item is among the current session's actions",
        derive.session_action_count,
        TOUCHED,
    ),
    Feature(
        "pair_session_reciprocal_position",
        Entity.PAIR,
        "1 / how many actions ago it was touched in the current session, the last being 1; 0 where it was not",
        PairView.session_reciprocal_position,
        TOUCHED,
    ),
    Feature(
        "pair_last_category_match",
        Entity.PAIR,
        "1 where the item has the category of the item last acted on",
        derive.last_category_match,
        TOUCHED,
    ),
    Feature(
        "pair_last_brand_match",
        Entity.PAIR,
        "1 where the item has the brand of the item last acted on",
        derive.last_brand_match,
        TOUCHED,
    ),
]


RETRIEVAL_FEATURES: Final = [
    *(
        Feature(
            f"retrieval_{source}_reciprocal_rank",
            Entity.RETRIEVAL,
            f"1 / rank in the list of {source}; 0 where it is not",
            derive.reciprocal_rank(column),
        )
        for column, source in enumerate(Retrieval)
    ),
    *(
        Feature(
            f"retrieval_{source}_score",
            Entity.RETRIEVAL,
            f"score of {source} over its list's best, whoever carries the item",
            derive.retrieval_score(column),
        )
        for column, source in enumerate(Retrieval)
    ),
    Feature("retrieval_sources_count", Entity.RETRIEVAL, "number of sources that carry it", derive.sources_count),
    Feature(
        "retrieval_covisitation_last_1",
        Entity.RETRIEVAL,
        "score over the best in the co-occurrence list of the last click (of the page's own item, where it has one)",
        derive.covisitation(0),
    ),
    Feature(
        "retrieval_covisitation_last_10",
        Entity.RETRIEVAL,
        "the same, summed over the last 10 items clicked",
        derive.covisitation(1),
    ),
    Feature("retrieval_text_score", Entity.RETRIEVAL, "fit with a search's words, over the best", derive.text_score),
]


REQUEST_FEATURES: Final = [
    Feature("request_hour_sin", Entity.REQUEST, "hour of day", derive.hour_of_day(math.sin)),
    Feature("request_hour_cos", Entity.REQUEST, "hour of day", derive.hour_of_day(math.cos)),
    Feature("request_weekday_sin", Entity.REQUEST, "day of week", derive.day_of_week(math.sin)),
    Feature("request_weekday_cos", Entity.REQUEST, "day of week", derive.day_of_week(math.cos)),
    Feature(
        "request_device",
        Entity.REQUEST,
        "code of the device: 0 not given, 1 unknown, from 2 in the order of the vocabulary",
        derive.code_of(lambda request: request.device, DEVICES),
        vocabulary=DEVICES,
    ),
    Feature(
        "request_surface",
        Entity.REQUEST,
        "code of the page it was asked from: 0 not given, 1 unknown, from 2 in the order of the vocabulary",
        derive.code_of(lambda request: request.surface, SURFACES),
        vocabulary=SURFACES,
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


def version_name(user_layout: Layout, item_layout: Layout) -> str:
    """The name of the state version that keeps these layouts in the format of this code."""
    return blake2b(repr((FORMAT, user_layout, item_layout)).encode(), digest_size=4).hexdigest()


STATE_VERSION: Final = version_name(USER_LAYOUT, ITEM_LAYOUT)
"""Names the aggregations that state in Redis was folded with, and the format of its bytes."""
