"""Popularity bent to taste: what a sort of the whole shop would give, without sorting it for every request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.candidates.params import PopularParams
from shared.candidates.popular import PopularSource
from shared.candidates.query import History, Query
from shared.candidates.trends import LEAST, Trends
from shared.events import ItemId
from shared.features.aggregations import DAY_MS, NEVER
from shared.features.items import ItemTable
from tests.unit.builders import MANY, NOW, all_rows, event, shopper_of, table_of, updated, view_of

COUNT = 40
POPULARITY = st.lists(st.integers(0, 9), min_size=COUNT, max_size=COUNT)
CODES = st.lists(st.integers(-1, 6), min_size=COUNT, max_size=COUNT)
TOUCHED = st.lists(st.integers(0, COUNT - 1), max_size=12, unique=True)
ALLOWED = st.lists(st.booleans(), min_size=COUNT, max_size=COUNT)
NAMED = st.lists(st.sampled_from([0.0, 4.75, 5.0]), max_size=8)


def trends_of(popularity: list[Any], codes: list[int]) -> Trends:
    count = len(popularity)
    nothing = np.full(count, NEVER), np.full(count, -1), np.zeros(count)
    return Trends(np.array(popularity, np.float64), np.array(codes, np.int64), *nothing)


def query_of(trends: Trends, touched: list[int], allowed: list[bool], named: list[float]) -> Query:
    items = np.array(touched, np.int32)
    weights = np.array([(1.0, 3.0, 5.0)[item % 3] for item in touched])
    history = History(items, weights, np.full(len(items), NOW), np.ones(len(items), np.int64))
    user = view_of(shopper_of(), ItemTable())
    return Query(
        user,
        history,
        seeds=np.empty(0, np.int32),
        seed_strength=np.empty(0),
        seed_age=np.empty(0, np.int64),
        neighbours={},
        trends=trends,
        as_of=NOW,
        eligible=np.array(allowed),
        favourites=np.array(named, np.float64),
    )


def naive(query: Query, params: PopularParams) -> dict[int, float]:
    """Every item's score, by loops over everything."""
    trend = {item: float(score) + LEAST for item, score in enumerate(query.trends.scores)}
    code_of = query.trends.category.tolist()
    best = {code: max(trend[item] for item in trend if code_of[item] == code) for code in set(code_of) - {-1}}
    taste = dict.fromkeys(best, 0.0)
    for age, (item, weight) in enumerate(zip(query.history.indexes.tolist(), query.history.weights, strict=True)):
        if code_of[item] >= 0:
            taste[code_of[item]] += weight * params.taste_decay**age
    for code, weight in enumerate(query.favourites.tolist()):
        if code in taste:
            taste[code] += weight

    def place(code: int) -> tuple[float, float, int]:
        return (
            -taste[code],
            -best[code],
            min(item for item in trend if (code_of[item], trend[item]) == (code, best[code])),
        )

    foremost = sorted((code for code in taste if taste[code] > 0), key=place)[: params.categories]
    taste = {code: taste[code] for code in foremost}
    whole, total = sum(trend.values()) - LEAST * len(trend), sum(taste.values())
    factor = {-1: 1.0} | dict.fromkeys(best, 1.0)
    for code in foremost:
        if len(query.history.indexes):
            share = sum(trend[item] - LEAST for item in trend if code_of[item] == code) / max(whole, LEAST)
            factor[code] = 1 + params.taste * taste[code] / total / (share + params.prior_share)
        elif eligible := [trend[item] for item in trend if code_of[item] == code and query.eligible[item]]:
            factor[code] = 1 + taste[code] / max(taste.values()) * max(trend.values()) / max(eligible)
    return {item: trend[item] * factor[code_of[item]] for item in trend}


QUERIES = st.builds(query_of, st.builds(trends_of, POPULARITY, CODES), TOUCHED, ALLOWED, NAMED)


@MANY
@given(QUERIES, st.integers(1, COUNT), st.sampled_from([1, 3, 10]))
def test_the_list_is_that_of_a_naive_sort_of_the_whole_shop(query: Query, limit: int, categories: int) -> None:
    params = PopularParams(categories=categories)
    opinion, wanted = PopularSource(params).consider(query), naive(query, params)
    np.testing.assert_allclose(opinion.at(np.arange(COUNT, dtype=np.int32)), list(wanted.values()), rtol=1e-6)
    eligible = sorted((score for item, score in wanted.items() if query.eligible[item]), reverse=True)[:limit]
    ranked = opinion.top(limit)
    assert ranked.scores.tolist() == pytest.approx(eligible)
    assert ranked.scores.tolist() == pytest.approx([wanted[item] for item in ranked.indexes.tolist()])
    assert query.eligible[ranked.indexes].all()
    assert len(set(ranked.indexes.tolist())) == len(eligible)


@MANY
@given(POPULARITY, CODES, ALLOWED, st.integers(1, COUNT), st.sampled_from([None, *range(-1, 8)]))
def test_the_first_of_what_is_allowed(
    popularity: list[int], codes: list[int], allowed: list[bool], limit: int, code: int | None
) -> None:
    found = trends_of(popularity, codes).first(np.array(allowed), limit, code)
    of_code = [item for item in range(COUNT) if allowed[item] and code in (None, codes[item])]
    assert found.tolist() == sorted(of_code, key=lambda item: (-popularity[item], item))[:limit]


def shop() -> ItemTable:
    """`steady` was viewed once a day for four weeks, `rising` today alone, `fallen` a week ago."""
    table = table_of(*(updated(item, at=NOW - 60 * DAY_MS) for item in ("fallen", "steady", "rising")))
    views = [("steady", day) for day in range(28, 0, -1)] + [("fallen", 8)] * 18 + [("rising", 0)] * 6
    for item, days_ago in sorted(views, key=lambda view: -view[1]):
        table.fold(event("view", item=item, at=NOW - days_ago * DAY_MS), NOW - days_ago * DAY_MS)
    return table


def test_momentum_prefers_what_rises() -> None:
    table = shop()
    trends = Trends.of(table, all_rows(table))
    fallen, steady, rising = (table.row_of_id(ItemId(item)) for item in ("fallen", "steady", "rising"))
    assert trends.rising(0) is trends
    assert trends.order.tolist() == [steady, fallen, rising]
    assert trends.rise[steady] == pytest.approx(1, abs=0.35)
    assert trends.rise[fallen] < 0.5
    assert trends.rise[rising] > 2
    lifted = trends.rising(1)
    assert lifted.order.tolist() == [rising, steady, fallen]
    assert lifted.scores.tolist() == pytest.approx((trends.scores * trends.rise).tolist())
    assert trends.rising(1) is lifted, "made once"
    query = query_of(trends, [], [True] * 3, [])
    by = {power: PopularSource(PopularParams(momentum=power)).consider(query).top(3).indexes[0] for power in (0, 1)}
    assert by == {0: steady, 1: rising}


def test_a_shop_where_nobody_did_anything_has_an_order_all_the_same() -> None:
    query = query_of(trends_of([0] * 5, [-1, 0, 0, 1, 1]), [3], [True] * 5, [])
    assert PopularSource().consider(query).top(5).indexes.tolist() == [3, 4, 0, 1, 2]
    stranger = replace(query, history=query_of(query.trends, [], [], []).history)
    assert PopularSource().consider(stranger).top(5).indexes.tolist() == [0, 1, 2, 3, 4]
