"""A shop's events and page requests as they come at once: late and repeated events, several workers, odd instants."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, Final

import msgspec

from functions.bootstrap import Services, now_ms
from functions.pages.recommender import Asked
from shared.ports import EventLog
from tests.integration.api_shop import CATEGORIES, PER_CATEGORY, ApiShop, category_of, item_id

USERS: Final = 3_000
ITEMS: Final = CATEGORIES * PER_CATEGORY
DUPLICATES: Final = 0.02
LATE: Final = 0.05
LATEST_MS: Final = 3 * 24 * 3_600_000
REMEMBERED: Final = 20_000
"""Among so many of the newest events a client sends one again."""

_KINDS: Final = ("view", "cart", "remove_from_cart", "purchase", "item_updated", "preferences_set", "user_erased")
_KIND_WEIGHTS: Final = (770, 100, 30, 60, 35, 4, 1)
_DEVICES: Final = (None, "phone", "desktop", "tablet", "fridge")
_SURFACES: Final = (None, "home", "product", "cart", "somewhere")
_SHIFTS_MS: Final = (0, 0, 0, 0, 0, 20 * 60_000, 12 * 3_600_000, 60 * 24 * 3_600_000)
"""A page is asked for now or up to so much later: values must go on decaying, sessions end, habits meet other hours."""

_ENCODER: Final = msgspec.json.Encoder()


def _shares(count: int) -> list[float]:
    return list(accumulate(rank**-0.8 for rank in range(1, count + 1)))


class EventMaker:
    """Bodies with their partition keys; `counts` says how many of which sort."""

    def __init__(self, seed: int, users: int = USERS) -> None:
        self._draw = random.Random(seed)
        self._users, self._user_shares = range(users), _shares(users)
        self._items, self._item_shares = range(ITEMS), _shares(ITEMS)
        self._sent: list[tuple[str, bytes]] = []
        self.counts: Counter[str] = Counter()

    def batch(self, count: int) -> list[tuple[str, bytes]]:
        """The next `count` of them; 2% were sent before, word for word, and 5% say that they happened long ago."""
        made = []
        for _ in range(count):
            if self._sent and self._draw.random() < DUPLICATES:
                self.counts["sent again"] += 1
                made.append(self._draw.choice(self._sent))
                continue
            self._sent.append(self._event())
            made.append(self._sent[-1])
        del self._sent[:-REMEMBERED]
        return made

    def _event(self) -> tuple[str, bytes]:
        draw = self._draw
        kind = draw.choices(_KINDS, weights=_KIND_WEIGHTS)[0]
        self.counts[kind] += 1
        late = draw.random() < LATE
        self.counts["late"] += late
        ago = timedelta(milliseconds=draw.randrange(60_000, LATEST_MS) if late else draw.randrange(2_000))
        item = draw.choices(self._items, cum_weights=self._item_shares)[0]
        user = f"user-{draw.choices(self._users, cum_weights=self._user_shares)[0]:05d}"
        event: dict[str, Any] = {
            "event_id": f"{draw.getrandbits(128):032x}",
            "event_type": kind,
            "occurred_at": (datetime.now(UTC) - ago).isoformat(),
        }
        if kind == "item_updated":
            changes = {"price_cents": 500 + item + draw.randrange(200), "stock": draw.randrange(1, 200)}
            return item_id(item), _ENCODER.encode(event | {"item_id": item_id(item), "changes": changes})
        event["user_id"] = user
        if kind == "preferences_set":
            event["changes"] = {"hidden_categories": [category_of(item)]}
        elif kind != "user_erased":
            event |= {"item_id": item_id(item), "price_cents": 500 + item, "quantity": draw.choice((1, 1, 2))}
        return user, _ENCODER.encode(event)


class Feeder:
    """Publishes events in batches of uneven size and folds them, as the pump does."""

    def __init__(self, shop: ApiShop, events: EventMaker, seed: int) -> None:
        self._shop = shop
        self._log: EventLog = shop.broker
        self._events = events
        self._draw = random.Random(seed)
        self.published = 0

    def feed(self, most: int) -> None:
        """One batch of at most `most`, published and folded."""
        batch = self._events.batch(min(most, self._draw.randrange(1, 400)))
        answers = self._log.append(batch)
        assert all(answer is not None for answer in answers), "the embedded log takes all or raises"
        self.published += len(batch)
        self._shop.pump()

    def feed_all(self, count: int) -> None:
        """`count` events, batch by batch."""
        until = self.published + count
        while self.published < until:
            self.feed(until - self.published)


class PageAsker:
    """Asks one worker's own recommender for pages, at instants of now and later."""

    def __init__(self, services: Services, seed: int, users: int = USERS, clock: Callable[[], int] = now_ms) -> None:
        self._draw = random.Random(seed)
        self._users, self._user_shares = range(users), _shares(users)
        self._clock = clock
        self._recommender = services.recommender
        self._recommender._clock = self._instant
        self.fallbacks: Counter[str] = Counter()

    def ask(self) -> None:
        """One page of the real recommender, with all that a request may say."""
        draw = self._draw
        user = f"user-{draw.choices(self._users, cum_weights=self._user_shares)[0]:05d}"
        asked = Asked(
            user_id=user if draw.random() > 0.02 else f"stranger-{uuid.UUID(int=draw.getrandbits(128))}",
            limit=draw.choice((5, 10, 20)),
            category=category_of(draw.randrange(ITEMS)) if draw.random() < 0.1 else None,
            context_item=item_id(draw.randrange(ITEMS)) if draw.random() < 0.2 else None,
            exclude=(item_id(draw.randrange(ITEMS)),) if draw.random() < 0.1 else (),
            device=draw.choice(_DEVICES),
            surface=draw.choice(_SURFACES),
        )
        self.fallbacks[self._recommender.recommend(asked).fallback or "personal"] += 1

    def _instant(self) -> int:
        longest = self._draw.choice(_SHIFTS_MS)
        return self._clock() + (self._draw.randrange(longest) if longest else 0)
