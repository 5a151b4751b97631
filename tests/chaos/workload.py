"""What the shop's clients send: believable behaviour with client duplicates, late events and poison, by seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from shared.adapters.keys import user_key
from shared.events import Event, EventType, ItemId, UserId, encode_event, from_ms
from tests.chaos.scale import SECRET, Scale

START_AT = 2_000_000_000_000
"""The first instant of the log; ahead of every clock, so that the broker takes the workload's instants for its own."""

HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS
SPAN_MS = 6 * DAY_MS
IDLE_MS = 401 * DAY_MS
"""The shop closes once for so long, early on: everyone's behaviour expires."""

DUPLICATES = 0.02
LATE = 0.05
FOLD_POISON = "poison-"
"""How an event id begins at which the consumers' fold raises."""

_POISON_EVERY = 700
_GARBAGE = (b"", b"{", b"\xff\x00", b'{"event_id":"x"}', b"[]", b"null", b'{"event_id":1}')


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as a client sends it: what chooses its partition, or which one it names, and its bytes."""

    key: str
    body: bytes
    partition: int | None = None
    at: int = 0
    """When it takes effect, epoch ms."""
    erases: str | None = None
    """The id of whom it erases."""


@dataclass(slots=True)
class Tally:
    """What the workload was made of."""

    events: int = 0
    duplicates: int = 0
    late: int = 0
    poison: int = 0


@dataclass(slots=True)
class Workload:
    """The stream of one seed: `batches` gives (the broker's instant in epoch ms, the events it takes then)."""

    scale: Scale
    seed: int
    tally: Tally = field(default_factory=Tally)
    _erased: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each user who was erased: how many events were sent before, and the newest erasure's instant."""

    def batches(self) -> Iterator[tuple[int, list[Sent]]]:
        """All events in order, `scale.append` at a time."""
        draw = random.Random(f"workload {self.seed}")
        sent: list[Sent] = []
        step_ms = max(1, SPAN_MS // self.scale.events)
        closed = self.scale.events // 10
        for start in range(0, self.scale.events, self.scale.append):
            at = START_AT + start * step_ms + (IDLE_MS if start >= closed else 0)
            numbers = range(start, min(start + self.scale.append, self.scale.events))
            fresh: list[Sent] = []
            for number in numbers:
                one = self._next(draw, number, at, sent)
                sent.append(one)
                fresh += self._copies(one)
            yield at, fresh

    def _next(self, draw: random.Random, number: int, at: int, sent: list[Sent]) -> Sent:
        self.tally.events += 1
        if sent and draw.random() < DUPLICATES and (again := self._again(draw, sent)):
            self.tally.duplicates += 1
            return again
        if number % _POISON_EVERY == _POISON_EVERY // 2:
            self.tally.poison += 1
            return self._poison(draw, number, at)
        behind = draw.randrange(2000)
        if draw.random() < LATE:
            self.tally.late += 1
            behind = draw.choice((HOUR_MS, DAY_MS, 30 * DAY_MS)) + draw.randrange(HOUR_MS)
        elif draw.random() < 0.01:
            behind = -draw.randrange(23 * HOUR_MS)  # a client's clock that is ahead
        fresh = self._event(draw, f"event-{self.seed}-{number}", at - behind)
        if fresh.erases is not None:
            _, newest_at = self._erased.get(fresh.erases, (0, 0))
            self._erased[fresh.erases] = len(sent), max(newest_at, at - behind)
        return replace(fresh, at=min(at, at - behind))

    def _copies(self, one: Sent) -> list[Sent]:
        """The event; an erasure that names a partition goes to each of them, as DELETE /user_profile sends it."""
        if one.partition is None:
            return [one]
        return [replace(one, partition=partition) for partition in range(self.scale.partitions)]

    def _again(self, draw: random.Random, sent: list[Sent]) -> Sent | None:
        """An event sent once more: within the batch, some batches later, or when nobody remembers it.

        None where it is one that an erasure covers: a state that is rebuilt from a redacted lake cannot know its id.
        """
        reach = draw.choice((20, 20, 20, 400, 400, 20_000))
        place = draw.randrange(max(0, len(sent) - reach), len(sent))
        erased_after, erased_at = self._erased.get(sent[place].key, (0, 0))
        return sent[place] if place >= erased_after and sent[place].at > erased_at else None

    def _poison(self, draw: random.Random, number: int, at: int) -> Sent:
        user = self._user(draw)
        kind = draw.randrange(3)
        if kind == 0:
            return Sent(user, draw.choice(_GARBAGE))
        if kind == 1:
            return self._event(draw, f"event-{self.seed}-{number}", at + DAY_MS + 1 + draw.randrange(DAY_MS))
        return self._event(draw, f"{FOLD_POISON}{self.seed}-{number}", at, EventType.VIEW)

    def _event(self, draw: random.Random, event_id: str, at: int, kind: EventType | None = None) -> Sent:
        roll = draw.random()
        common: dict[str, Any] = {"event_id": event_id, "occurred_at": from_ms(at)}
        user, item = UserId(self._user(draw)), ItemId(f"item-{draw.randrange(self.scale.items)}")
        if kind is None and roll < 0.05:
            changes: dict[str, Any] = draw.choice((
                {"title": f"Title of {event_id}", "categories": ["all", f"category-{draw.randrange(9)}"]},
                {"price_cents": draw.randrange(1, 90_000)},
                {"stock": draw.randrange(4), "brand": f"brand-{draw.randrange(5)}"},
            ))  # fmt: skip
            event = Event(event_type=EventType.ITEM_UPDATED, item_id=item, changes=changes, **common)
        elif kind is None and roll < 0.06:
            changes = {"hidden_items": [item]}
            event = Event(event_type=EventType.PREFERENCES_SET, user_id=user, changes=changes, **common)
        elif kind is None and roll < 0.062:
            receipt = f"{draw.getrandbits(128):032x}"
            changes = {"user_key": user_key(user, SECRET).hex(), "receipt": receipt}
            event = Event(event_type=EventType.USER_ERASED, changes=changes, **common)
            return Sent(event.partition_key, encode_event(event), partition=0, erases=user)
        elif kind is None and roll < 0.063:
            event = Event(event_type=EventType.USER_ERASED, user_id=user, **common)
            return Sent(user, encode_event(event), erases=user)
        else:
            chosen = kind or draw.choice((EventType.VIEW,) * 6 + (EventType.CART, EventType.CART, EventType.PURCHASE))
            price = draw.choice((None, 0, draw.randrange(1, 90_000)))
            event = Event(event_type=chosen, user_id=user, item_id=item, price_cents=price, **common)
        return Sent(event.partition_key, encode_event(event))

    def _user(self, draw: random.Random) -> str:
        """A few users do most: their rings overflow by number, the others' by age."""
        return f"user-{int(self.scale.users * draw.random() ** 3)}"
