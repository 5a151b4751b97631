"""A shop's events as a partition of the broker log delivers them: many shoppers at once, a few of them very active."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

from shared.events import Event, EventType, ItemId, RecommendationId, SessionId, UserId, encode_event, from_ms
from shared.ports import LogRecord

SOURCE: Final = "live-1"
START_AT: Final = 1_780_000_000_000
USER_EXPONENT, ITEM_EXPONENT = 0.8, 1.0
"""Zipf: the user of rank r has r ** -0.8 of the first one's share, the item of rank r 1 / r."""

EVENTS_A_SESSION: Final = 8
_KINDS: Final = (EventType.VIEW, EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE)
_KIND_WEIGHTS: Final = (80, 11, 3, 6)
_UPDATES: Final = 0.02
_PREFERENCES: Final = 0.002
_DUPLICATES: Final = 0.01
_LATE: Final = 0.02
_SURFACES: Final = ("home", "product", "search", "cart")
_DEVICES: Final = ("phone", "desktop", "tablet")


def zipf_shares(count: int, exponent: float) -> list[float]:
    """Cumulated weights of ranks 1 to `count`, for `random.choices`."""
    return list(accumulate(rank**-exponent for rank in range(1, count + 1)))


@dataclass(slots=True)
class _Session:
    user: str
    number: int
    seen: list[int] = field(default_factory=list)


class EventStream:
    """Events of `users` shoppers and `items` products; `at_once` sessions of about 8 events run interleaved."""

    def __init__(self, seed: int, *, users: int = 100_000, items: int = 20_000, at_once: int = 2_000) -> None:
        self._draw = random.Random(seed)
        self._users, self._items = range(users), range(items)
        self._user_shares = zipf_shares(users, USER_EXPONENT)
        self._item_shares = zipf_shares(items, ITEM_EXPONENT)
        self._made = 0
        self._sessions = [self._session() for _ in range(at_once)]
        self._bodies: list[bytes] = []

    def bodies(self, count: int, *, start_at: int = START_AT, step_ms: int = 5) -> Iterator[tuple[int, bytes]]:
        """(enqueued_at, body) of the next `count` events, one every `step_ms`."""
        for number in range(count):
            enqueued_at = start_at + number * step_ms
            if self._bodies and self._draw.random() < _DUPLICATES:
                yield enqueued_at, self._draw.choice(self._bodies[-500:])
                continue
            late_ms = self._draw.randrange(300_000) if self._draw.random() < _LATE else self._draw.randrange(400)
            self._bodies.append(encode_event(self._event(enqueued_at - late_ms)))
            yield enqueued_at, self._bodies[-1]

    def _event(self, at: int) -> Event:
        draw, self._made = self._draw, self._made + 1
        common: dict[str, Any] = {"event_id": f"{draw.getrandbits(128):032x}", "occurred_at": from_ms(at)}
        item = draw.choices(self._items, cum_weights=self._item_shares)[0]
        if draw.random() < _UPDATES:
            changes: dict[str, Any] = {"stock": draw.randrange(200), "price_cents": _price(item)}
            return Event(event_type=EventType.ITEM_UPDATED, item_id=_item_id(item), changes=changes, **common)
        place = draw.randrange(len(self._sessions))
        session = self._sessions[place]
        if draw.random() < 1 / EVENTS_A_SESSION:
            session = self._sessions[place] = self._session()
        if draw.random() < _PREFERENCES:
            changes = {"hidden_brands": ["Acme"]}
            return Event(event_type=EventType.PREFERENCES_SET, user_id=UserId(session.user), changes=changes, **common)
        kind = draw.choices(_KINDS, weights=_KIND_WEIGHTS)[0]
        if kind is not EventType.VIEW and session.seen:
            item = draw.choice(session.seen)
        session.seen.append(item)
        recommended = draw.random() < 0.3
        return Event(
            event_type=kind,
            user_id=UserId(session.user),
            item_id=_item_id(item),
            session_id=SessionId(f"session-{session.number:09d}"),
            price_cents=_price(item),
            quantity=None if kind is EventType.VIEW else draw.choice((1, 1, 1, 2)),
            recommendation_id=RecommendationId(f"r1-{draw.getrandbits(64):016x}") if recommended else None,
            context={"surface": draw.choice(_SURFACES), "device": draw.choice(_DEVICES)},
            **common,
        )

    def _session(self) -> _Session:
        user = self._draw.choices(self._users, cum_weights=self._user_shares)[0]
        self._made += 1
        return _Session(f"user-{user:07d}", self._made)


def _item_id(item: int) -> ItemId:
    return ItemId(f"item-{item:06d}")


def _price(item: int) -> int:
    return 199 + item * 7919 % 25_000


def log_records(bodies: Sequence[tuple[int, bytes]], first: int = 0, partition: int = 0) -> list[LogRecord]:
    """The bodies as consecutive records of one partition, from sequence `first` on."""
    return [
        LogRecord(SOURCE, partition, first + place, enqueued_at, body)
        for place, (enqueued_at, body) in enumerate(bodies)
    ]
