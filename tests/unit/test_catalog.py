"""The catalogue is a fold: per field the newest effective time wins, whatever the order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.catalog import CatalogEntry, decode_entry
from shared.events import Event, EventType, ItemId, from_ms, id_hash

ITEM = ItemId("i")


def update(event_id: str, at: int, **changes: Any) -> Event:
    return Event(
        event_id=event_id, event_type=EventType.ITEM_UPDATED, occurred_at=from_ms(at), item_id=ITEM, changes=changes
    )


def entry_of(events: list[tuple[Event, int]]) -> CatalogEntry:
    entry = CatalogEntry(item_id=ITEM, fields={})
    for event, enqueued_at in events:
        entry.apply(event, enqueued_at)
    return entry


changes = st.fixed_dictionaries(
    {},
    optional={
        "title": st.text(max_size=5), "stock": st.integers(0, 9), "price_cents": st.integers(0, 9),
        "hidden": st.booleans(), "brand": st.none() | st.sampled_from(["A", "B"]),
        "categories": st.lists(st.sampled_from(["x", "y"]), max_size=2),
        "attributes": st.dictionaries(st.sampled_from(["k"]), st.integers(0, 3) | st.booleans(), max_size=1),
    },
)  # fmt: skip
updates = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), changes), max_size=8)


def events_of(drawn: list[tuple[int, int, dict[str, Any]]]) -> list[tuple[Event, int]]:
    return [(update(f"e{index}", at, **fields), enqueued_at) for index, (at, enqueued_at, fields) in enumerate(drawn)]


@given(updates, st.randoms(use_true_random=False), st.integers(0, 8))
def test_any_order_any_split_and_any_repetition_give_equal_bytes(drawn: Any, draw: Any, cut: int) -> None:
    events = events_of(drawn)
    expected = entry_of(events).encode()
    shuffled = events + events[:3]
    draw.shuffle(shuffled)
    assert entry_of(shuffled).encode() == expected
    left, right = entry_of(events[:cut]), entry_of(events[cut:])
    right.merge(left)
    assert right.encode() == expected
    assert decode_entry(expected).encode() == expected


@given(updates)
def test_every_field_is_that_of_its_newest_event(drawn: Any) -> None:
    events = events_of(drawn)
    product = entry_of(events).product()
    for name in ("title", "stock", "price_cents", "hidden", "brand"):
        setters = [
            (min(event.occurred_at_ms, enqueued_at), id_hash(event.event_id), (event.changes or {})[name])
            for event, enqueued_at in events
            if name in (event.changes or {})
        ]
        if setters:
            assert getattr(product, name) == max(setters, key=lambda one: one[:2])[2]


def test_a_clock_that_runs_ahead_counts_as_the_brokers() -> None:
    entry = entry_of([(update("a", 500, stock=1), 100), (update("b", 200, stock=2), 200)])
    assert entry.product().stock == 2


def test_a_product_says_whether_it_may_be_shown() -> None:
    assert entry_of([(update("a", 1, title="T"), 1)]).product().available
    assert not entry_of([(update("a", 1, stock=0), 1)]).product().available
    assert not entry_of([(update("a", 1, hidden=True), 1)]).product().available
    named = entry_of([(update("a", 1, categories=["Home", "Lamps"], arrived_at="2026-01-01T00:00:00Z"), 1)]).product()
    assert (named.category, named.arrived_at) == ("Lamps", 1_767_225_600_000)


def test_two_entries_share_no_fields() -> None:
    first = CatalogEntry(item_id=ITEM)
    first.apply(update("a", 1, stock=3), 1)
    assert CatalogEntry(item_id=ITEM).fields == {}
