from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import EventType
from shared.features.aggregations import DAY_MS, EXPIRES_AFTER_MS, HOUR_MS
from shared.features.definitions import ITEM_LAYOUT, USER_LAYOUT
from shared.features.fold import ItemCounters, fold_item
from shared.features.items import CounterColumns
from shared.features.state import EntityState
from tests.unit.builders import MODEST, NOW, Sent, histories, sent, state_of


@MODEST
@given(histories())
def test_bytes_survive_a_round_trip_and_fold_on_as_if_they_had_never_been_bytes(history: list[Sent]) -> None:
    straight = state_of(history)
    stored = EntityState.empty(USER_LAYOUT)
    for one in history:
        stored = EntityState.decode(USER_LAYOUT, stored.encode())
        stored.add(one.event, one.enqueued_at)
    assert stored.encode() == straight.encode()
    assert EntityState.decode(USER_LAYOUT, straight.encode()).encode() == straight.encode()


@MODEST
@given(histories(), st.integers(1, 60))
def test_columns_fold_bit_for_bit_as_a_state_does(history: list[Sent], rows: int) -> None:
    columns, alone = CounterColumns(capacity=rows), [ItemCounters.empty() for _ in range(rows)]
    for number, one in enumerate(history):
        row = number * 7 % rows
        columns.add(row, one.event, one.enqueued_at)
        fold_item(alone[row], one.event, one.enqueued_at)
    for row, counters in enumerate(alone):
        assert columns.newest_at[row] == counters.state.newest_at
        assert columns.last_enqueued_at[row] == counters.state.last_enqueued_at
        assert columns.decayed[row].tobytes() == counters.state.decayed.tobytes()
        assert columns.counts[row].tobytes() == counters.state.counts.tobytes()


@MODEST
@given(histories(), st.lists(st.integers(-DAY_MS, 500 * DAY_MS), min_size=1, max_size=3))
def test_columns_loaded_from_bytes_read_as_the_states_do(history: list[Sent], waits: list[int]) -> None:
    counters = [ItemCounters.empty() for _ in range(3)]
    for number, one in enumerate(history):
        fold_item(counters[number % 3], one.event, one.enqueued_at)
    columns, encoded = CounterColumns(capacity=5), [counter.encode() for counter in counters]
    columns.load(np.array([4, 0, 2]), encoded)
    assert [ItemCounters.decode(data).encode() for data in encoded] == encoded
    for wait in waits:
        as_of = max((one.at for one in history), default=NOW) + wait
        decayed, counts = columns.decayed_at(np.array([4, 0, 2]), as_of), columns.counts_at(np.array([4, 0, 2]), as_of)
        for place, state in enumerate(counter.state for counter in counters):
            gone = state.expired(as_of)
            np.testing.assert_array_equal(counts[place], 0 if gone else state.counts)
            np.testing.assert_allclose(decayed[place], 0 if gone else state.decayed_at(as_of), rtol=1e-12)


def test_a_clock_from_before_1970_reads_as_any_other() -> None:
    counters, columns = ItemCounters.empty(), CounterColumns(capacity=1)
    ancient = sent("view", at=-17_000_000 * HOUR_MS, enqueued_at=NOW)
    later = sent("view", at=-16_999_998 * HOUR_MS, enqueued_at=NOW)
    for one in (ancient, later, ancient):
        fold_item(counters, one.event, one.enqueued_at)
        columns.add(0, one.event, one.enqueued_at)
    assert columns.decayed[0].tobytes() == counters.state.decayed.tobytes()
    for as_of in (later.at + HOUR_MS, NOW):
        read = columns.decayed_at(np.array([0]), as_of)[0]
        np.testing.assert_allclose(read, counters.state.decayed_at(as_of), rtol=1e-12)


def test_growth_keeps_what_was_there_and_starts_the_rest_empty() -> None:
    columns, wide = CounterColumns(capacity=2), CounterColumns(capacity=3000)
    numbers = random.Random(3)
    for number in range(300):
        row = numbers.randrange(1 + number * 10)
        columns.reserve(row + 1)
        one = sent(numbers.choice(list(EventType)[:4]), at=NOW + numbers.randrange(DAY_MS), price_cents=number)
        columns.add(row, one.event, one.enqueued_at)
        wide.add(row, one.event, one.enqueued_at)
    size = len(columns.newest_at)
    assert 2048 <= size < 6000
    for name in ("newest_at", "last_enqueued_at", "decayed", "counts"):
        assert getattr(columns, name)[:3000].tobytes() == getattr(wide, name)[:size].tobytes()


def test_idleness_is_judged_on_the_brokers_clock() -> None:
    state = state_of([sent("view", at=NOW - 390 * DAY_MS, enqueued_at=NOW)])
    assert not state.expired(NOW + EXPIRES_AFTER_MS)
    assert state.expired(NOW + EXPIRES_AFTER_MS + 1)


def test_an_items_bytes_have_one_size_and_a_users_stay_small() -> None:
    counters, sizes = ItemCounters.empty(), set()
    for number in range(50):
        sizes.add(len(counters.encode()))
        fold_item(counters, sent("purchase", at=NOW + number).event, NOW)
    assert len(sizes) == 1
    assert sizes.pop() <= 200
    heavy = state_of([sent(kind, at=NOW + n, item=f"{n}") for n in range(420) for kind in ("view", "cart", "purchase")])
    assert len(heavy.encode()) < 13_000


def test_bytes_of_another_layout_are_not_read_as_if_they_were_ours() -> None:
    user = state_of([sent("view")]).encode()
    with pytest.raises((ValueError, struct.error)):
        EntityState.decode(USER_LAYOUT, user[:-1])
    with pytest.raises((ValueError, struct.error)):
        EntityState.decode(USER_LAYOUT, ItemCounters.empty().encode()[:40])
    assert ItemCounters.empty().state.layout is ITEM_LAYOUT
