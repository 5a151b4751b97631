"""Small builders of events, states and tables, and the hypothesis settings and strategies that share them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from shared.events import Event, EventType, ItemId, UserId, effective_at, from_ms
from shared.features.aggregations import DAY_MS, HOUR_MS, MINUTE_MS
from shared.features.definitions import LISTS, USER_LAYOUT
from shared.features.items import ItemTable
from shared.features.shard import Shopper, UserShard
from shared.features.state import EntityState
from shared.features.views import UserView, user_lists

UTC = ZoneInfo("UTC")
NOW = 1_700_000_000_000
"""Tuesday 2023-11-14 22:13:20 UTC."""
MODEST = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties over whole histories."""
MANY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties of one cheap function."""


@dataclass(frozen=True)
class Sent:
    """An event with the broker's clock, epoch ms."""

    event: Event
    enqueued_at: int

    @property
    def at(self) -> int:
        return effective_at(self.event.occurred_at_ms, self.enqueued_at)

    @property
    def kind(self) -> EventType:
        return self.event.event_type


_made = iter(range(10**9))


def event(
    kind: EventType | str = EventType.VIEW,
    *,
    item: str | None = "item-1",
    user: str | None = "ann",
    at: int = NOW,
    event_id: str | None = None,
    **fields: Any,
) -> Event:
    """An event at epoch ms `at`; ids that nobody names are made up, each once."""
    return Event(
        event_id=event_id or f"made-{next(_made)}",
        event_type=EventType(kind),
        occurred_at=from_ms(at),
        user_id=None if user is None else UserId(user),
        item_id=None if item is None else ItemId(item),
        **fields,
    )


def sent(kind: EventType | str = EventType.VIEW, *, at: int = NOW, enqueued_at: int | None = None, **rest: Any) -> Sent:
    """An event that the broker took at `enqueued_at`, by default when it happened."""
    return Sent(event(kind, at=at, **rest), at if enqueued_at is None else enqueued_at)


def updated(item: str, *, at: int = NOW, event_id: str | None = None, **changes: Any) -> Event:
    """An item_updated event."""
    return event(EventType.ITEM_UPDATED, item=item, user=None, at=at, event_id=event_id, changes=changes)


def asked(*, at: int = NOW, user: str = "ann", event_id: str | None = None, **changes: Any) -> Event:
    """A preferences_set event."""
    return event(EventType.PREFERENCES_SET, item=None, user=user, at=at, event_id=event_id, changes=changes)


def state_of(history: Iterable[Sent]) -> EntityState:
    """A user's state, folded in the order given."""
    state = EntityState.empty(USER_LAYOUT)
    for one in history:
        state.add(one.event, one.enqueued_at)
    return state


def shopper_of(*history: Sent) -> Shopper:
    """A user who did just this."""
    return Shopper(state_of(history))


def shard_bytes(shard: UserShard) -> bytes:
    """The shard as bytes, after a round trip that must not change them."""
    data = shard.encode()
    assert UserShard.decode(data).encode() == data
    return data


def view_of(shopper: Shopper, table: ItemTable, as_of: int = NOW, time_zone: ZoneInfo = UTC) -> UserView:
    """The user against a table."""
    return UserView(shopper.state, as_of, user_lists(shopper.state, table.row_of, LISTS), time_zone)


def table_of(*updates: Event) -> ItemTable:
    """A table whose catalogue these item_updated events made; rows in order of first mention."""
    table = ItemTable()
    for one in updates:
        table.fold(one, one.occurred_at_ms)
    return table


def all_rows(table: ItemTable) -> np.ndarray[Any, np.dtype[np.int64]]:
    """int64[n] of every row."""
    return np.arange(len(table), dtype=np.int64)


ACTIONS = (EventType.VIEW, EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE)
GAPS_MS = st.one_of(
    st.integers(0, 45 * MINUTE_MS),
    st.integers(0, 60 * DAY_MS),
    st.sampled_from([0, 30 * MINUTE_MS, 30 * MINUTE_MS + 1, HOUR_MS, DAY_MS]),
)


@st.composite
def histories(draw: st.DrawFn, *, longest: int = 25, items: Sequence[str] = ("a", "b", "c", "d", "e")) -> list[Sent]:
    """Behaviour in log order (enqueued_at ascending), some of it late by up to 30 days, some sharing an instant."""
    history = []
    enqueued_at = NOW - 90 * DAY_MS
    for number in range(draw(st.integers(0, longest))):
        enqueued_at += draw(GAPS_MS)
        late_ms = draw(st.sampled_from([0, 0, 0, -HOUR_MS, 1, 7 * MINUTE_MS, 5 * HOUR_MS, 30 * DAY_MS]))
        history.append(
            sent(
                draw(st.sampled_from(ACTIONS)),
                at=enqueued_at - late_ms,
                enqueued_at=enqueued_at,
                item=draw(st.sampled_from(items)),
                event_id=f"event-{number}",
                price_cents=draw(st.sampled_from([None, 0, 1, 999, 250_000])),
                quantity=draw(st.sampled_from([None, 1, 3])),
            )
        )
    return history
