from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import EventType, id_hash
from shared.features.aggregations import (
    DAY_MS,
    HOUR_MS,
    NEVER,
    Aggregation,
    Amount,
    Count,
    Decayed,
    Earliest,
    LastK,
    Layout,
    decay,
)
from shared.features.definitions import ITEM_LAYOUT, USER_LAYOUT
from shared.features.entries import ENTRY_BYTES, Entry
from shared.features.state import EntityState
from tests.unit import oracle
from tests.unit.builders import ACTIONS, MODEST, NOW, Sent, event, histories, sent

ALL = (EventType.VIEW, EventType.CART, EventType.PURCHASE)
EVERY_KIND: tuple[Aggregation, ...] = (
    *(Decayed(ALL, half_life_ms) for half_life_ms in (HOUR_MS, DAY_MS, 30 * DAY_MS)),
    *(Decayed((EventType.PURCHASE, EventType.CART), 7 * DAY_MS, amount) for amount in Amount),
    Decayed((EventType.REMOVE_FROM_CART,), DAY_MS),
    Count((EventType.VIEW,)),
    Count(ALL),
    Earliest((EventType.PURCHASE,)),
    Earliest(ALL),
    LastK((EventType.VIEW,), 3),
    LastK(ALL, 5),
    *USER_LAYOUT.slot,
    *ITEM_LAYOUT.slot,
)
"""A small one of each kind, and all that features declare."""
LAYOUT = Layout(EVERY_KIND)
BOUND = 64 + 8 * len(LAYOUT.slot) + sum(4 + one.k * ENTRY_BYTES for one in LAYOUT.lists)
"""Bytes that no state of the layout exceeds, whatever happens: a number a slot, and lists as long as they may get."""


def folded(history: list[Sent], layout: Layout = LAYOUT) -> EntityState:
    state = EntityState.empty(layout)
    for one in history:
        state.add(one.event, one.enqueued_at)
    return state


def value_of(state: EntityState, aggregation: Aggregation, as_of: int) -> float | int | list[Entry]:
    slot = LAYOUT.slot[aggregation]
    match aggregation:
        case Decayed():
            return float(state.decayed_at(as_of)[slot])
        case Count():
            return int(state.counts[slot])
        case Earliest():
            return int(state.earliest[slot])
        case LastK():
            return state.lists[slot]


def test_every_kind_of_aggregation_and_of_amount_is_among_those_tested() -> None:
    assert {type(one) for one in LAYOUT.slot} == set(get_args(Aggregation))
    assert {one.amount for one in LAYOUT.decayed} == set(Amount)


def assert_is_what_the_oracle_says(state: EntityState, history: list[Sent], as_of: int) -> None:
    for aggregation in EVERY_KIND:
        found, wanted = value_of(state, aggregation, as_of), oracle.value(history, aggregation, as_of)
        if isinstance(aggregation, Decayed):
            size = math.fsum(map(abs, oracle.contributions(history, aggregation, as_of)))
            assert abs(found - wanted) <= 1e-9 * size, aggregation  # type: ignore[operator]  # both are floats
        else:
            assert found == wanted, aggregation


@MODEST
@given(histories(), st.randoms(use_true_random=False), st.integers(0, 3), st.sampled_from([0, 1, HOUR_MS, 40 * DAY_MS]))
def test_any_split_and_any_order_give_the_oracles_value(
    history: list[Sent], random: random.Random, cuts: int, later_ms: int
) -> None:
    shuffled = history[:]
    random.shuffle(shuffled)
    parts = [[one for place, one in enumerate(shuffled) if place % (cuts + 1) == part] for part in range(cuts + 1)]
    merged = EntityState.empty(LAYOUT)
    for part in parts:
        merged = merged.merge(folded(part))
    assert_is_what_the_oracle_says(merged, history, NOW + later_ms)
    assert_is_what_the_oracle_says(folded(shuffled), history, NOW + later_ms)
    assert_equal_but_for_rounding(merged, folded(history), history)
    assert_equal_but_for_rounding(folded(shuffled), folded(history), history)


def assert_equal_but_for_rounding(left: EntityState, right: EntityState, history: list[Sent]) -> None:
    assert (left.newest_at, left.last_enqueued_at) == (right.newest_at, right.last_enqueued_at)
    assert left.counts.tobytes() == right.counts.tobytes()
    assert left.earliest.tobytes() == right.earliest.tobytes()
    assert left.lists == right.lists
    for slot, aggregation in enumerate(LAYOUT.decayed):
        size = math.fsum(map(abs, oracle.contributions(history, aggregation, left.newest_at)))
        assert abs(left.decayed[slot] - right.decayed[slot]) <= 1e-9 * size


@MODEST
@given(histories(longest=10), histories(longest=10), histories(longest=10))
def test_merge_is_associative_and_commutative_and_empty_is_its_unit(
    one: list[Sent], two: list[Sent], three: list[Sent]
) -> None:
    a, b, c = folded(one), folded(two), folded(three)
    before = [state.encode() for state in (a, b, c)]
    assert a.merge(b).encode() == b.merge(a).encode()
    assert_equal_but_for_rounding(a.merge(b).merge(c), a.merge(b.merge(c)), one + two + three)
    assert a.merge(EntityState.empty(LAYOUT)).encode() == a.encode() == EntityState.empty(LAYOUT).merge(a).encode()
    assert [state.encode() for state in (a, b, c)] == before, "a merge changed what it read"


@MODEST
@given(histories(), st.lists(st.integers(0, 200 * DAY_MS), min_size=2, max_size=4))
def test_later_queries_keep_decaying_and_earlier_ones_stand_at_the_newest_event(
    history: list[Sent], waits: list[int]
) -> None:
    state = folded(history)
    newest_at = max((one.at for one in history), default=NOW)
    assert state.decayed_at(newest_at - DAY_MS).tobytes() == state.decayed_at(newest_at).tobytes()
    read = [state.decayed_at(newest_at + wait) for wait in sorted(waits)]
    for earlier, later in pairwise(read):
        assert (later <= earlier).all()
    day_later = state.decayed_at(newest_at + DAY_MS)
    halved = [slot for slot, one in enumerate(LAYOUT.decayed) if one.half_life_ms == DAY_MS]
    np.testing.assert_allclose(day_later[halved], state.decayed_at(newest_at)[halved] / 2, rtol=1e-12)


@MODEST
@given(histories(), st.data())
def test_an_event_that_arrives_late_counts_as_if_it_had_come_in_time(history: list[Sent], data: st.DataObject) -> None:
    # Held back by its client or by the network: the broker takes it later, and it still belongs to when it happened.
    in_time = [replace(one, enqueued_at=max(one.enqueued_at, one.at)) for one in history]
    delays = data.draw(st.lists(st.integers(0, 100 * DAY_MS), min_size=len(history), max_size=len(history)))
    late = [
        Sent(
            event(
                one.kind,
                at=one.at,
                event_id=one.event.event_id,
                item=one.event.item_id,
                price_cents=one.event.price_cents,
                quantity=one.event.quantity,
            ),
            one.enqueued_at + delay,
        )
        for one, delay in zip(in_time, delays, strict=True)
    ]
    late.sort(key=lambda one: one.enqueued_at)
    found, wanted = folded(late), folded(in_time)
    assert found.last_enqueued_at >= wanted.last_enqueued_at
    assert_equal_but_for_rounding(replace(found, last_enqueued_at=wanted.last_enqueued_at), wanted, history)


def test_a_late_event_counts_where_it_belongs() -> None:
    on_time = [sent("view", at=NOW - 7 * DAY_MS, item="a"), sent("view", at=NOW, item="b")]
    late = [on_time[1], Sent(on_time[0].event, NOW + DAY_MS)]
    np.testing.assert_allclose(folded(late).decayed, folded(on_time).decayed, rtol=1e-12)
    assert folded(late).lists == folded(on_time).lists
    once_a_week = LAYOUT.slot[Decayed(ALL, 30 * DAY_MS)]
    assert folded(late).decayed_at(NOW)[once_a_week] == pytest.approx(1 + 2 ** (-7 / 30))
    assert [item for _, _, item in folded(late).lists[LAYOUT.slot[LastK(ALL, 5)]]] == [id_hash("a"), id_hash("b")]


def test_a_clock_that_runs_ahead_is_held_at_the_brokers() -> None:
    ahead = folded([sent("view", at=NOW + HOUR_MS, enqueued_at=NOW)])
    assert ahead.newest_at == NOW
    assert ahead.lists[LAYOUT.slot[LastK(ALL, 5)]][0][0] == NOW


@MODEST
@given(histories(longest=60), histories(longest=60))
def test_no_history_and_no_merge_outgrows_the_bound(one: list[Sent], two: list[Sent]) -> None:
    for state in (folded(one), folded(two), folded(one).merge(folded(two)), folded(one + two)):
        assert all(len(held) <= kind.k for held, kind in zip(state.lists, LAYOUT.lists, strict=True))
        assert len(state.encode()) <= BOUND


def test_memory_is_bounded() -> None:
    small = Layout(one for one in EVERY_KIND if not isinstance(one, LastK) or one.k <= 5)
    history = [sent(ACTIONS[number % 4], at=NOW + number, item=f"i{number}", price_cents=7) for number in range(300)]
    state, sizes = EntityState.empty(small), []
    for one in history:
        state.add(one.event, one.enqueued_at)
        sizes.append(len(state.encode()))
    assert sizes[-1] == max(sizes) == sizes[40], "full after some tens of events, and never larger"


def test_before_anything_happened() -> None:
    empty = EntityState.empty(LAYOUT)
    assert not empty.decayed_at(NOW).any()
    assert not empty.expired(NOW)
    assert set(empty.earliest.tolist()) == {NEVER}


def test_slots_do_not_depend_on_the_order_of_declaration() -> None:
    assert repr(Layout(reversed(EVERY_KIND))) == repr(LAYOUT) == repr(Layout(EVERY_KIND * 2))
    assert repr(LAYOUT) != repr(Layout(EVERY_KIND[1:]))


def test_decay_halves_once_a_half_life() -> None:
    half_lives = np.array([HOUR_MS, DAY_MS], dtype=np.float64)
    np.testing.assert_allclose(decay(np.array([8.0, 8.0]), DAY_MS, half_lives), [8 * 2.0**-24, 4.0])
    np.testing.assert_allclose(decay(np.ones((2, 2)), np.array([[0.0], [DAY_MS]]), half_lives)[:, 1], [1.0, 0.5])


@pytest.mark.parametrize("kind", [EventType.PREFERENCES_SET, EventType.USER_ERASED, EventType.ITEM_UPDATED])
def test_what_is_no_behaviour_adds_nothing(kind: EventType) -> None:
    state = folded([sent(kind, item=None)])
    assert not state.decayed.any()
    assert not state.counts.any()
    assert state.lists == [[] for _ in LAYOUT.lists]
