"""What every aggregation and every computed feature is, said naively: a loop over the whole history, each time anew.

Nothing here is folded, merged, decayed step by step or vectorised, so nothing here can share a mistake with the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from zlib import crc32
from zoneinfo import ZoneInfo

from shared.catalog import Product
from shared.events import EventType, from_ms, id_hash
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
    LastK,
)
from shared.features.definitions import Retrieval
from shared.features.entries import Entry
from tests.unit.builders import UTC, Sent

WEIGHT = {EventType.VIEW: 1.0, EventType.CART: 3.0, EventType.PURCHASE: 5.0}
KEPT = {EventType.VIEW: 50, EventType.CART: 50, EventType.PURCHASE: 400, EventType.REMOVE_FROM_CART: 50}
SPANS = {"1h": HOUR_MS, "1d": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS}
DEVICES = ["desktop", "mobile", "tablet", "app"]
SURFACES = ["home", "category", "search", "product", "cart", "account", "email"]
LONG_AGO = 24.0 * 400


def amount_of(one: Sent, amount: Amount) -> float:
    """What an event brings to a decayed sum."""
    price = one.event.price_cents
    match amount:
        case Amount.ONE:
            return 1.0
        case Amount.CENTS:
            return 0.0 if price is None else float(price * (one.event.quantity or 1))
        case Amount.PRICED:
            return 0.0 if price is None else 1.0
        case Amount.LOG_PRICE:
            return 0.0 if price is None else math.log(max(price, 1))
        case Amount.LOG_PRICE_SQUARED:
            return 0.0 if price is None else math.log(max(price, 1)) ** 2


def contributions(history: Sequence[Sent], aggregation: Decayed, as_of: int) -> list[float]:
    """Each event's share of a decayed sum; never evaluated before the newest event of any type."""
    as_of = max([as_of, *(one.at for one in history)])
    return [
        amount_of(one, aggregation.amount) * 2.0 ** (-(as_of - one.at) / aggregation.half_life_ms)
        for one in history
        if one.kind in aggregation.events
    ]


def entries(history: Sequence[Sent], kinds: Sequence[EventType], k: int) -> list[Entry]:
    """The newest k events of these types, ascending."""
    found = [(one.at, _tie(one), id_hash(str(one.event.item_id))) for one in history if one.kind in kinds]
    return sorted(set(found))[-k:]


def value(history: Sequence[Sent], aggregation: Aggregation, as_of: int) -> float | int | list[Entry]:
    """The value of any aggregation at `as_of`."""
    match aggregation:
        case Decayed():
            return math.fsum(contributions(history, aggregation, as_of))
        case Count():
            return sum(one.kind in aggregation.events for one in history)
        case Earliest():
            return min((one.at for one in history if one.kind in aggregation.events), default=NEVER)
        case LastK():
            return entries(history, aggregation.events, aggregation.k)


@dataclass(frozen=True)
class Act:
    """One of a user's listed actions."""

    item: str
    at: int
    kind: EventType


@dataclass(frozen=True)
class Scene:
    """A user's history, the catalogue by item id, one candidate, all behaviour of that candidate, and the instant.

    `carried` holds each source's list (item and score, best first), `met` the co-occurrence lists (score by item) of
    her last clicks, newest first; `text` what the words of a search give each item.
    """

    history: Sequence[Sent]
    products: Mapping[str, Product]
    item: str
    item_history: Sequence[Sent]
    as_of: int
    time_zone: ZoneInfo = UTC
    carried: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    met: Sequence[Mapping[str, float]] = ()
    device: str | None = None
    surface: str | None = None
    text: Mapping[str, float] = field(default_factory=dict)

    @property
    def now(self) -> int:
        """The user's values never stand before her newest event."""
        return max([self.as_of, *(one.at for one in self.history)])

    def listed(self, kind: EventType) -> list[Act]:
        """Her actions of one kind as far as its list reaches, newest first."""
        mine = sorted((one for one in self.history if one.kind is kind), key=_newest_first)[: KEPT[kind]]
        return [Act(str(one.event.item_id), one.at, kind) for one in mine]

    def acts(self) -> list[Act]:
        """Views, carts and purchases as far as the lists reach, newest first."""
        acts = [act for kind in WEIGHT for act in self.listed(kind)]
        return sorted(acts, key=lambda act: (-act.at, -WEIGHT[act.kind]))

    def session(self) -> list[Act]:
        """Walk back until a silence of more than 30 minutes."""
        session: list[Act] = []
        later = self.now
        for act in self.acts():
            if later - act.at > 30 * MINUTE_MS:
                break
            session.append(act)
            later = act.at
        return session

    def weight(self, act: Act) -> float:
        """What an action still says about her taste."""
        return WEIGHT[act.kind] * math.pow(2.0, -(self.now - act.at) / (14 * DAY_MS))

    def habit(self, alike: Callable[[datetime, datetime], bool]) -> float:
        """Of the weight of what she did before this session, the part done when the shop's clock read alike."""
        now = from_ms(self.now).astimezone(self.time_zone)
        past = self.acts()[len(self.session()) :]
        total = math.fsum(self.weight(act) for act in past)
        same = (self.weight(act) for act in past if alike(from_ms(act.at).astimezone(self.time_zone), now))
        return math.fsum(same) / total if total > 0 else -1.0

    def share(self, acts: Sequence[Act], code: Callable[[Product], str | None]) -> float:
        """Of the decayed weight of these actions, the part that has the candidate's code."""
        wanted = code(self.products[self.item]) if self.item in self.products else None
        total, same = 0.0, 0.0
        for act in acts:
            weight = self.weight(act)
            total += weight
            if act.item in self.products and wanted and code(self.products[act.item]) == wanted:
                same += weight
        return same / total if total > 0 else 0.0

    def log_prices(self, history: Sequence[Sent]) -> tuple[float, float]:
        """Decayed mean and standard deviation of the log price (half-life 30 d); NaN without a price."""
        newest = max([self.as_of, *(one.at for one in history)])
        priced = [
            (math.log(max(one.event.price_cents, 1)), 2.0 ** (-(newest - one.at) / (30 * DAY_MS)))
            for one in history
            if one.kind in WEIGHT and one.event.price_cents is not None
        ]
        total = math.fsum(weight for _, weight in priced)
        if total <= 1e-9:
            return math.nan, math.nan
        mean = math.fsum(weight * log for log, weight in priced) / total
        return mean, math.sqrt(math.fsum(weight * (log - mean) ** 2 for log, weight in priced) / total)

    def decayed(self, kind: EventType, span_ms: int) -> float:
        """Of the candidate's own history."""
        return math.fsum(contributions(self.item_history, Decayed((kind,), span_ms), self.as_of))

    def hours_since(self, kind: EventType) -> float:
        """Since the user last did this with the candidate."""
        times = [act.at for act in self.listed(kind) if act.item == self.item]
        return (self.now - max(times)) / HOUR_MS if times else LONG_AGO


def _newest_first(one: Sent) -> tuple[int, int, int]:
    return -one.at, -_tie(one), -id_hash(str(one.event.item_id))


def _tie(one: Sent) -> int:
    """What orders events of one instant."""
    return crc32(one.event.event_id.encode()) % 2**16


def _or(number: float, default: float) -> float:
    return default if math.isnan(number) else number


def _recency(scene: Scene) -> float:
    return (scene.now - scene.acts()[0].at) / HOUR_MS if scene.acts() else LONG_AGO


def _tenure(scene: Scene) -> float:
    times = [one.at for one in scene.history if one.kind in WEIGHT]
    return (scene.now - min(times)) / DAY_MS if times else 0.0


def _log_price(scene: Scene) -> float:
    product = scene.products.get(scene.item)
    return math.log(product.price_cents) if product is not None and product.price_cents > 0 else math.nan


def _age(scene: Scene) -> float:
    product = scene.products.get(scene.item)
    return -1.0 if product is None or product.arrived_at is None else (scene.as_of - product.arrived_at) / DAY_MS


def _stock(scene: Scene) -> float:
    product = scene.products.get(scene.item)
    return -1.0 if product is None or product.stock is None else float(min(product.stock, 100))


def _rate(kind: EventType, prior: float) -> Callable[[Scene], float]:
    def rate(scene: Scene) -> float:
        hits, views = scene.decayed(kind, 30 * DAY_MS), scene.decayed(EventType.VIEW, 30 * DAY_MS)
        return (hits + 20.0 * prior) / (views + 20.0)

    return rate


def _session_position(scene: Scene) -> float:
    items = [act.item for act in scene.session()]
    return 1.0 / (1 + items.index(scene.item)) if scene.item in items else 0.0


def _last_match(code: Callable[[Product], str | None]) -> Callable[[Scene], float]:
    def match(scene: Scene) -> float:
        last = scene.products.get(scene.acts()[0].item) if scene.acts() else None
        mine = scene.products.get(scene.item)
        return float(last is not None and mine is not None and bool(code(last)) and code(last) == code(mine))

    return match


def _ms_of_day(clock: datetime) -> int:
    return ((clock.hour * 60 + clock.minute) * 60 + clock.second) * 1000 + clock.microsecond // 1000


def _near(one: datetime, other: datetime) -> bool:
    apart = abs(_ms_of_day(one) - _ms_of_day(other))
    return min(apart, DAY_MS - apart) <= 2 * HOUR_MS


def _carried(scene: Scene, source: str) -> tuple[int, float]:
    """The candidate's rank in a list, and its score over the best's; (0, 0) where the list does not carry it."""
    listed = scene.carried.get(source, ())
    for rank, (item, score) in enumerate(listed, start=1):
        if item == scene.item:
            return rank, score / listed[0][1]
    return 0, 0.0


def _reciprocal_rank(source: str) -> Callable[[Scene], float]:
    def reciprocal(scene: Scene) -> float:
        rank, _ = _carried(scene, source)
        return 1 / rank if rank else 0.0

    return reciprocal


def _score(source: str) -> Callable[[Scene], float]:
    return lambda scene: _carried(scene, source)[1]


def _met(scene: Scene, clicks: int) -> float:
    return sum(scores.get(scene.item, 0.0) / max(scores.values()) for scores in scene.met[:clicks] if scores)


def _code(word: str | None, vocabulary: list[str]) -> float:
    if word is None:
        return 0.0
    return 2.0 + vocabulary.index(word.lower()) if word.lower() in vocabulary else 1.0


def _turn(wave: Callable[[float], float], *, weekly: bool) -> Callable[[Scene], float]:
    def value(scene: Scene) -> float:
        clock = from_ms(scene.as_of).astimezone(scene.time_zone)
        day = (clock.hour + clock.minute / 60) / 24
        return wave(2 * math.pi * ((clock.weekday() + day) / 7 if weekly else day))

    return value


def _of_user(aggregation: Decayed | Count) -> Callable[[Scene], float]:
    return lambda scene: _number(scene.history, aggregation, scene.as_of)


def _of_item(aggregation: Decayed | Count) -> Callable[[Scene], float]:
    return lambda scene: _number(scene.item_history, aggregation, scene.as_of)


def _number(history: Sequence[Sent], aggregation: Decayed | Count, as_of: int) -> float:
    found = value(history, aggregation, as_of)
    assert not isinstance(found, list)
    return float(found)


STORED: dict[str, Callable[[Scene], float]] = {
    **{
        f"{entity}_{kind}_decayed_{span}": of(Decayed((kind,), half_life_ms))
        for entity, of in (("user", _of_user), ("item", _of_item))
        for kind in KEPT
        for span, half_life_ms in SPANS.items()
        if entity == "user" or kind in WEIGHT
    },
    **{
        f"{entity}_{kind}_count_ever": of(Count((kind,)))
        for entity, of in (("user", _of_user), ("item", _of_item))
        for kind in WEIGHT
    },
    **{
        f"user_{kind}_decayed_cents_{span}": _of_user(Decayed((kind,), half_life_ms, Amount.CENTS))
        for kind in WEIGHT
        for span, half_life_ms in SPANS.items()
    },
    "user_price_weight_30d": _of_user(Decayed(tuple(WEIGHT), 30 * DAY_MS, Amount.PRICED)),
}
"""By name, every feature that is the value of one aggregation."""

COMPUTED: dict[str, Callable[[Scene], float]] = {
    "user_price_mean_30d": lambda scene: _or(scene.log_prices(scene.history)[0], -1.0),
    "user_price_spread_30d": lambda scene: _or(scene.log_prices(scene.history)[1], -1.0),
    "user_action_recency_hours": _recency,
    "user_tenure_days": _tenure,
    "user_session_length": lambda scene: len(scene.session()),
    "user_session_age_minutes": lambda scene: (
        (scene.now - scene.session()[-1].at) / MINUTE_MS if scene.session() else 0.0
    ),
    "item_cart_rate_30d": _rate(EventType.CART, 0.06),
    "item_purchase_rate_30d": _rate(EventType.PURCHASE, 0.02),
    "item_view_momentum_7d": lambda scene: (
        (scene.decayed(EventType.VIEW, DAY_MS) + 1) / (scene.decayed(EventType.VIEW, 7 * DAY_MS) / 7 + 1)
    ),
    "item_price_log": lambda scene: _or(_log_price(scene), -1.0),
    "item_price_against_mean_30d": lambda scene: _or(_log_price(scene) - scene.log_prices(scene.item_history)[0], 0.0),
    "item_age_days": _age,
    "item_stock": _stock,
    "pair_view_recency_hours": lambda scene: scene.hours_since(EventType.VIEW),
    "pair_cart_recency_hours": lambda scene: scene.hours_since(EventType.CART),
    "pair_purchase_recency_hours": lambda scene: scene.hours_since(EventType.PURCHASE),
    "pair_action_count_last": lambda scene: sum(act.item == scene.item for act in scene.acts()),
    "pair_category_affinity_14d": lambda scene: scene.share(scene.acts(), lambda product: product.category),
    "pair_brand_affinity_14d": lambda scene: scene.share(scene.acts(), lambda product: product.brand),
    "pair_session_category_affinity": lambda scene: scene.share(scene.session(), lambda product: product.category),
    "pair_price_distance_30d": lambda scene: _or(_log_price(scene) - scene.log_prices(scene.history)[0], 0.0),
    "user_hour_habit_14d": lambda scene: scene.habit(_near),
    "user_weekday_habit_14d": lambda scene: scene.habit(lambda one, other: one.weekday() == other.weekday()),
    "pair_remove_from_cart_recency_hours": lambda scene: scene.hours_since(EventType.REMOVE_FROM_CART),
    "pair_session_action_count": lambda scene: sum(act.item == scene.item for act in scene.session()),
    "pair_session_reciprocal_position": _session_position,
    "pair_last_category_match": _last_match(lambda product: product.category),
    "pair_last_brand_match": _last_match(lambda product: product.brand),
    **{f"retrieval_{source}_reciprocal_rank": _reciprocal_rank(source) for source in Retrieval},
    **{f"retrieval_{source}_score": _score(source) for source in Retrieval},
    "retrieval_sources_count": lambda scene: sum(_carried(scene, source)[0] > 0 for source in Retrieval),
    "retrieval_covisitation_last_1": lambda scene: _met(scene, 1),
    "retrieval_covisitation_last_10": lambda scene: _met(scene, 10),
    "retrieval_text_score": lambda scene: scene.text.get(scene.item, 0.0) / max(scene.text.values(), default=1.0),
    "request_hour_sin": _turn(math.sin, weekly=False),
    "request_hour_cos": _turn(math.cos, weekly=False),
    "request_weekday_sin": _turn(math.sin, weekly=True),
    "request_weekday_cos": _turn(math.cos, weekly=True),
    "request_device": lambda scene: _code(scene.device, DEVICES),
    "request_surface": lambda scene: _code(scene.surface, SURFACES),
}
"""By name, every feature that is more than the value of one aggregation."""

FEATURES = STORED | COMPUTED
"""By name, every feature: what it must be."""
