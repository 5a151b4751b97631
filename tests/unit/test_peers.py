"""Other methods on the judge's queries: what they may know, what they may show, and answers that are known by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from batch.evaluation.peer_methods import METHODS, PeerData, PeerMethod
from batch.evaluation.peer_queries import DAY_MS, STRENGTHS, PeerQueries, queries_of_pages
from batch.evaluation.peers import Field, tune
from batch.interactions import PURCHASE, VIEW, Interactions
from tests.unit.test_night_pages import pages

ITEMS, USERS, DAYS = 12, 30, 40


def interactions(rows: list[tuple[int, int, int, float]]) -> Interactions:
    """(user, item, event type, day) rows, each day a session of its user."""
    rows = sorted(rows, key=lambda row: (row[0], row[3]))
    user, item, kind, day = (np.array(column) for column in zip(*rows, strict=True))
    at = (day * DAY_MS).astype(np.int64)
    return Interactions(
        user.astype(np.int32), item.astype(np.int32), kind.astype(np.int8), at, at, np.ones(len(at), np.int32),
        (user * 1000 + day.astype(int)).astype(np.int32),
    )  # fmt: skip


def two_tastes() -> Interactions:
    """Even users buy of the items 0 to 5 and odd ones of 6 to 11; each has one that she buys each time."""
    draw = np.random.default_rng(1)
    rows = []
    for user in range(USERS):
        start = 6 * (user % 2)
        for day in range(0, DAYS, 4):
            rows.append((user, start + user // 2 % 6, PURCHASE, float(day)))
            rows += [(user, start + int(item), PURCHASE, float(day)) for item in draw.choice(6, 2, replace=False)]
    return interactions(rows)


def queries(everything: Interactions, users: list[int], day: float) -> PeerQueries:
    table = pages()
    count = len(users)
    asked = replace(
        table, user=np.array(users, np.int32), as_of=np.full(count, int(day * DAY_MS)), length=np.ones(count, np.int32),
        positives=np.ones(count, np.int32), positive_items=np.zeros(count, np.int32), touched=np.zeros(count, np.bool_),
        at_start=np.ones(count, np.bool_), stranger=np.zeros(count, np.bool_),
    )  # fmt: skip
    return queries_of_pages(asked, everything, starts_only=True)


def test_a_history_is_what_was_known_at_the_instant_with_visits_counted_back() -> None:
    rows = [
        (0, 1, PURCHASE, 1.0),
        (0, 2, VIEW, 3.0),
        (0, 1, PURCHASE, 3.1),
        (0, 3, PURCHASE, 9.0),
        (1, 4, PURCHASE, 2.0),
    ]
    asked = queries(interactions(rows), [0, 1, 7], 5.0)
    assert asked.baskets.tolist() == [2, 1, 0], "of a user whom nobody has seen nothing is known"
    known = sorted(zip(asked.row.tolist(), asked.item.tolist(), asked.lag.tolist(), asked.kind.tolist(), strict=True))
    assert known == [(0, 1, 0, PURCHASE), (0, 1, 1, PURCHASE), (0, 2, 0, VIEW), (1, 4, 0, PURCHASE)]
    half = asked.history(6, STRENGTHS["graded"], decay=0.5).toarray()
    assert half[0].tolist() == [0, 7.5, 1, 0, 0, 0]
    assert asked.withheld(6, 3).toarray().nonzero()[1].tolist() == [1], "bought less than three days ago"


def field_of(everything: Interactions, asked: PeerQueries, bought_window_days: int = 0) -> Field:
    data = PeerData(everything.known_before(30 * DAY_MS), everything, USERS, ITEMS, 30 * DAY_MS, asked)
    return Field(data, np.zeros(ITEMS, np.int64), bought_window_days)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_tells_two_tastes_apart_and_obeys_the_rules(name: str) -> None:
    everything, method = two_tastes(), METHODS[name]
    field = field_of(everything, queries(everything, [0, 1, 2, 3], 33.0))
    params: dict[str, Any] = {key: choices[0] for key, choices in method.space.items()}
    block = method.fit(field.data, params, 0)
    lists = field.lists_of(block)
    assert sorted(lists[0][:ITEMS].tolist()) == list(range(ITEMS)), "all that exists, once"
    if name != "popularity":
        for query, shown in enumerate(lists):
            assert {item // 6 for item in shown[:3].tolist()} == {query % 2}, f"{name}: {shown}"
    late = replace(field, first_seen_at=np.where(np.arange(ITEMS) == 4, 34 * DAY_MS, 0))
    assert 4 not in late.lists_of(block)
    touched = field.data.queries.touched(ITEMS).toarray() > 0
    assert not touched[np.arange(4)[:, None], field.lists_of(block, unseen=True)][:, :3].any()
    withheld = replace(field, bought_window_days=5).lists_of(block)
    bought = field.data.queries.withheld(ITEMS, 5).toarray() > 0
    assert bought.any()
    assert not bought[np.arange(4)[:, None], withheld][withheld >= 0].any()


def test_frequency_comes_first_and_equals_go_by_what_is_popular_now() -> None:
    rows = [(0, 5, PURCHASE, 1.0), (0, 5, PURCHASE, 2.0), (0, 3, PURCHASE, 2.0), (0, 4, PURCHASE, 2.0)]
    rows += [(user, 4, PURCHASE, 4.0) for user in range(1, 9)]
    everything = interactions(rows)
    field = field_of(everything, queries(everything, [0], 5.0))
    block = METHODS["personal frequency"].fit(field.data, {"decay": 1.0, "strength": "bought"}, 0)
    assert field.lists_of(block)[0][:3].tolist() == [5, 4, 3]


def test_a_temporal_frequency_is_the_papers() -> None:
    """Four baskets in groups of two: 1 | 1, 2 | 3; the last group is whole, the first too."""
    rows = [(0, 1, PURCHASE, 1.0), (0, 1, PURCHASE, 2.0), (0, 2, PURCHASE, 3.0), (0, 3, PURCHASE, 4.0)]
    everything = interactions([*rows, (1, 9, PURCHASE, 1.0), (2, 9, PURCHASE, 1.0)])
    field = field_of(everything, queries(everything, [0], 5.0))
    params = {"k": 2, "within": 0.5, "among": 0.1, "alpha": 1.0, "group_size": 2, "strength": "bought"}
    scores = METHODS["TIFU-kNN"].fit(field.data, params, 0)(slice(0, 1))[0]
    np.testing.assert_allclose(scores[[1, 2, 3]], [0.1 * 1.5 / 4, 0.5 / 4, 1 / 4], rtol=1e-6)
    near = METHODS["TIFU-kNN"].fit(field.data, {**params, "alpha": 0.0}, 0)(slice(0, 1))[0]
    assert near.nonzero()[0].tolist() == [9], "her neighbours are others"


def test_tuning_keeps_what_the_label_period_favours_and_repeats_itself() -> None:
    everything = two_tastes()
    field = field_of(everything, queries(everything, [0, 2, 4], 33.0))

    def fit(data: PeerData, params: Any, _seed: int) -> Any:
        wanted = np.zeros((len(data.queries), ITEMS), np.float32)
        wanted[:, 0] = params["sign"]
        return lambda chosen: wanted[chosen]

    method = PeerMethod(fit, {"sign": (-1.0, 1.0), "other": (1, 2, 3)})
    params, value = tune(method, field, 6, 0)
    assert params["sign"] == 1.0
    assert value == 1.0, "item 0 is what everyone is asked for"
    assert tune(method, field, 6, 0) == (params, value)
    assert tune(method, field, 1, 0)[0] == {"sign": -1.0, "other": 1}, "the first try is the defaults"
