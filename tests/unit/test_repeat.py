"""Personal repeat: frequency, recency on two scales, gaps between purchases, what the shop wants now."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.candidates.params import RepeatParams
from shared.candidates.query import Acts
from shared.candidates.repeat import RepeatSource, due, own_scores
from shared.features.aggregations import DAY_MS
from shared.recommend import PageRequest, Shelf, prepare
from tests.unit.builders import MANY, NOW, all_rows, event, sent, shopper_of, table_of, updated
from tests.unit.test_recommend import model

VIEW, CART, PURCHASE = 1.0, 3.0, 5.0
PLAIN = RepeatParams(
    long_days=1e9, short_share=0, step_decay=1, frequency=1, at_hand_share=1, wait=0, demand=0, usual_gap_days=0
)


def acts(*done: tuple[int, float, float]) -> Acts:
    """(item, days ago, weight), newest first."""
    items, days, weights = zip(*done, strict=True) if done else ((), (), ())
    at = NOW - np.round(np.array(days, dtype=np.float64) * DAY_MS).astype(np.int64)
    return Acts(np.array(items, np.int64), at, np.array(weights, np.float64))


def scores(*done: tuple[int, float, float], **changes: Any) -> list[float]:
    found: list[float] = own_scores(acts(*done), NOW, replace(PLAIN, **changes)).tolist()
    return found


def test_frequency_sums_what_the_actions_weigh() -> None:
    done = [(0, 1, VIEW), (1, 2, PURCHASE), (0, 3, CART), (0, 4, VIEW)]
    assert scores(*done) == pytest.approx([5, 5])
    assert scores(*done, frequency=0) == pytest.approx([1, 5]), "the newest act alone"
    assert scores(*done, frequency=0.5) == pytest.approx([5**0.5, 5])
    assert scores() == []


def test_acts_are_halved_on_two_scales() -> None:
    done = [(0, 10, VIEW), (1, 40, VIEW)]
    assert scores(*done, long_days=10) == pytest.approx([0.5, 1 / 16])
    both = scores(*done, long_days=40, short_days=5, short_share=0.25)
    assert both == pytest.approx([0.75 * 2**-0.25 + 0.25 / 4, 0.75 / 2 + 0.25 / 256])


def test_a_session_by_the_age_of_the_last_occurrence() -> None:
    """`Last occurrence, .8 an age step`: positions matter, neither time nor number."""
    done = [(2, 0, VIEW), (0, 5, VIEW), (2, 60, VIEW), (1, 61, VIEW), (0, 300, VIEW)]
    assert scores(*done, frequency=0, step_decay=0.8) == pytest.approx([0.8, 0.8**3, 1])
    assert scores(*done, frequency=1, step_decay=0.8) == pytest.approx([0.8 + 0.8**4, 0.8**3, 1 + 0.8**2])


def test_what_she_has_before_her_is_not_what_comes_next() -> None:
    assert scores((0, 0, VIEW), (1, 0, VIEW), at_hand_share=0.5) == pytest.approx([0.5, 1])
    assert scores((0, 0, PURCHASE), (1, 0, VIEW), at_hand_share=0.5) == pytest.approx([5, 1])


def monthly(days_since: float, **changes: Any) -> float:
    """How due an item is that was bought every 30 days, so long after the last time."""
    bought = [(0, days_since + 30 * times, PURCHASE) for times in range(4)]
    share = due(acts(*bought), NOW, replace(PLAIN, wait=1, gap_prior=0, gap_doubt=0.01, **changes))
    return float(share[0])


def test_what_is_bought_monthly_is_due_after_four_weeks_and_not_after_two_days() -> None:
    assert monthly(2, due_at=0.5) < 0.01
    assert monthly(28, due_at=0.5) > 0.99
    course = [monthly(days) for days in (0, 2, 5, 10, 15, 20, 28, 60, 300)]
    assert course == sorted(course)
    assert monthly(15, due_at=0.5, due_sharpness=1) == pytest.approx(1 - np.exp(-1), rel=0.01)


def test_one_purchase_alone_says_nothing_of_a_gap_unless_her_other_items_or_the_shop_do() -> None:
    params = replace(PLAIN, wait=1, gap_prior=1, gap_doubt=1)
    once = [(0, 1, PURCHASE)]
    assert due(acts(*once), NOW, params).tolist() == [1]
    assert due(acts(*once), NOW, replace(params, usual_gap_days=30))[0] == pytest.approx(0.5, abs=0.001)
    weekly = [(1, 7 + 7 * times, PURCHASE) for times in range(3)]
    beside_others = due(acts(*once, *weekly), NOW, params)
    assert beside_others[0] < 0.51
    assert beside_others[1] > 0.999
    assert due(acts(*once, *weekly), NOW, replace(params, gap_prior=0))[0] == 1


def test_an_order_in_two_parts_is_one_occasion_and_a_view_is_none() -> None:
    params = replace(PLAIN, wait=1, gap_prior=0)
    assert due(acts((0, 0.05, PURCHASE), (0, 0.25, PURCHASE)), NOW, params).tolist() == [1]
    assert due(acts((0, 1.0, PURCHASE), (0, 31.0, VIEW)), NOW, params).tolist() == [1]
    assert due(acts((0, 1.0, PURCHASE), (0, 31.0, PURCHASE)), NOW, params)[0] < 1


def naive_due(done: list[tuple[int, float, float]], params: RepeatParams) -> list[float]:
    items = max((item for item, _, _ in done), default=-1) + 1
    gaps: list[list[float]] = []
    for item in range(items):
        times = sorted(days for one, days, weight in done if one == item and weight == PURCHASE)
        gaps.append([b - a for a, b in pairwise(times) if b - a > 0.5])
    every = [gap for own in gaps for gap in own]
    usual = sum(every) / len(every) if every else params.usual_gap_days
    prior = params.gap_prior if usual > 0 else 0
    shares = []
    for item in range(items):
        times = [days for one, days, weight in done if one == item and weight == PURCHASE]
        evidence = len(gaps[item]) + prior
        if not times or not evidence:
            shares.append(1.0)
            continue
        gap = (sum(gaps[item]) + prior * usual) / evidence
        waiting = np.exp(-((min(times) / (params.due_at * gap)) ** params.due_sharpness))
        shares.append(1 - params.wait * evidence / (evidence + params.gap_doubt) * waiting)
    return shares


DONE = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 800).map(lambda days: days / 4), st.sampled_from([VIEW, CART, PURCHASE])
    ),
    max_size=30,
).map(lambda done: sorted(done, key=lambda one: one[1]))


@MANY
@given(DONE, st.sampled_from([0.0, 0.2, 2.0]), st.sampled_from([0.0, 20.0]), st.sampled_from([1.0, 4.0]))
def test_gaps_are_what_a_naive_loop_finds(
    done: list[tuple[int, float, float]], prior: float, usual: float, sharpness: float
) -> None:
    params = RepeatParams(gap_prior=prior, usual_gap_days=usual, due_sharpness=sharpness, wait=0.7)
    found = due(acts(*done), NOW, params)
    assert found.tolist() == pytest.approx(naive_due(done, params))
    assert ((found >= 1 - params.wait) & (found <= 1)).all()


@MANY
@given(DONE)
def test_every_item_she_touched_has_a_score_and_an_act_more_never_less(done: list[tuple[int, float, float]]) -> None:
    found = own_scores(acts(*done), NOW, RepeatParams(frequency=1))
    touched = {item for item, _, _ in done}
    assert all(found[item] > 0 for item in touched)
    older = own_scores(acts(*done, (0, 400.0, VIEW)), NOW, RepeatParams(frequency=1, wait=0))
    without = own_scores(acts(*done), NOW, RepeatParams(frequency=1, wait=0))
    if 0 in touched:
        assert older[0] >= without[0]
    assert older[1 : len(without)].tolist() == without[1:].tolist()


def test_of_equals_what_the_shop_wants_now_comes_first() -> None:
    table = table_of(*(updated(item, at=NOW - DAY_MS) for item in ("plain", "wanted", "unwanted")))
    for _ in range(20):
        table.fold(event("view", item="wanted", user="others", at=NOW), NOW)
    hers = shopper_of(*(sent("cart", item=item, at=NOW - DAY_MS) for item in ("plain", "wanted")))
    shelf = Shelf.of(table, all_rows(table))
    query = prepare(shelf, model(), hers, PageRequest(NOW)).query
    ranked = {demand: RepeatSource(RepeatParams(demand=demand)).consider(query).top(5) for demand in (0.0, 0.5)}
    assert ranked[0.5].indexes.tolist() == [1, 0]
    assert ranked[0.5].scores[0] / ranked[0.5].scores[1] == pytest.approx(((3 + 0.8) / 0.8) ** 0.5)
    assert ranked[0.0].scores[0] == ranked[0.0].scores[1]
    nobody = replace(query, trends=replace(query.trends, scores=np.zeros(3)))
    assert RepeatSource().consider(nobody).top(5).indexes.tolist() == [0, 1]
