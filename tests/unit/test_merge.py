from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.candidates.merge import MINIMUM, merge
from shared.candidates.opinion import Listed
from shared.candidates.params import DEFAULT, LIMITS
from shared.candidates.query import Query
from shared.candidates.trends import Trends
from shared.features.aggregations import HOUR_MS, NEVER
from shared.features.definitions import Retrieval
from shared.features.items import ItemTable
from tests.unit.builders import MANY, NOW, all_rows, event, shopper_of, table_of, updated, view_of

COLUMN = {name: column for column, name in enumerate(Retrieval)}


def query_of(popularity: list[float], eligible: list[bool] | None = None) -> Query:
    count = len(popularity)
    unsaid = np.zeros(count, np.int64), np.full(count, NEVER), np.full(count, -1), np.zeros(count)
    trends = Trends(np.array(popularity), *unsaid)
    nothing = np.empty(0, np.int32)
    user = view_of(shopper_of(), ItemTable())
    allowed = np.ones(count, np.bool_) if eligible is None else np.array(eligible)
    return Query(user, None, nothing, np.empty(0), np.empty(0, np.int64), {}, trends, NOW, allowed)  # type: ignore[arg-type]  # not read here


def listed(*pairs: tuple[int, float], via: int = -1) -> Listed:
    indexes, scores = [index for index, _ in pairs], [score for _, score in pairs]
    return Listed.of(
        np.array(indexes, np.int32),
        np.array(scores, np.float32),
        np.ones(30, np.bool_),
        lambda items: np.full(len(items), via, np.int32),
    )


def test_the_union_says_who_carried_what_where_and_why() -> None:
    lists = {
        Retrieval.ALS: listed((7, 4.0), (2, 1.0)),
        Retrieval.TRANSITIONS: listed((2, 0.5), (9, 0.25), via=1),
        Retrieval.REPEAT: Listed.nothing(),
    }
    merged = merge(lists, query_of([0.0] * 10), DEFAULT, minimum=0)
    assert merged.indexes.tolist() == [2, 7, 9]
    als, transitions = COLUMN[Retrieval.ALS], COLUMN[Retrieval.TRANSITIONS]
    assert merged.retrieval.ranks[:, als].tolist() == [2, 1, 0]
    assert merged.retrieval.scores[:, als].tolist() == [0.25, 1.0, 0.0]
    assert merged.retrieval.ranks[:, transitions].tolist() == [1, 0, 2]
    assert merged.retrieval.scores[:, transitions].tolist() == [1.0, 0.0, 0.5]
    assert merged.via[:, transitions].tolist() == [1, -1, 1]
    others = [column for column in COLUMN.values() if column not in (als, transitions)]
    assert not merged.retrieval.ranks[:, others].any()


def test_a_thin_union_is_filled_with_what_is_popular_and_may_be_shown() -> None:
    query = query_of([1, 9, 8, 7, 6, 5], eligible=[True, True, False, True, True, True])
    merged = merge({Retrieval.ALS: listed((1, 1.0), (5, 0.5))}, query, DEFAULT, minimum=4)
    assert merged.indexes.tolist() == [1, 3, 4, 5]
    assert (merged.retrieval.ranks > 0).sum(axis=1).tolist() == [1, 0, 0, 1]


PAIRS = st.dictionaries(st.integers(0, 29), st.floats(0.1, 9), max_size=12).map(lambda scores: listed(*scores.items()))


@MANY
@given(
    st.dictionaries(st.sampled_from(list(Retrieval)), PAIRS, min_size=1),
    st.lists(st.integers(0, 5), min_size=30, max_size=30),
    st.lists(st.booleans(), min_size=30, max_size=30),
    st.integers(0, 40),
)
def test_a_union_is_ascending_whole_and_filled_as_a_naive_loop_fills_it(
    lists: dict[Retrieval, Listed], popularity: list[int], allowed: list[bool], minimum: int
) -> None:
    merged = merge(lists, query_of([float(score) for score in popularity], allowed), DEFAULT, minimum)
    wanted = {index for one in lists.values() for index in one.indexes.tolist()}
    for index in sorted(range(30), key=lambda index: (-popularity[index], index)):
        if len(wanted) < minimum and allowed[index]:
            wanted.add(index)
    assert merged.indexes.tolist() == sorted(wanted)
    assert merged.indexes.dtype == np.int32
    for row, index in enumerate(merged.indexes.tolist()):
        for name, column in COLUMN.items():
            places = lists[name].top(30).indexes.tolist() if name in lists else []
            rank = places.index(index) + 1 if index in places else 0
            assert merged.retrieval.ranks[row, column] == rank
            assert (merged.retrieval.scores[row, column] > 0) == (rank > 0)
            assert merged.retrieval.scores[row, column] <= 1


def test_an_empty_shop_has_an_empty_union() -> None:
    merged = merge({name: Listed.nothing() for name in Retrieval}, query_of([]), DEFAULT)
    assert len(merged.indexes) == 0
    assert merged.retrieval.ranks.shape == (0, len(Retrieval))


def test_every_source_scores_what_any_source_carries() -> None:
    others = Listed(np.array([2, 4], np.int32), np.array([3.0, 1.0]), np.array([False, True]))
    merged = merge(
        {Retrieval.REPEAT: listed((2, 1.0)), Retrieval.COOCCURRENCE: others}, query_of([0.0] * 10), DEFAULT, minimum=0
    )
    assert merged.indexes.tolist() == [2, 4]
    column = COLUMN[Retrieval.COOCCURRENCE]
    assert merged.retrieval.ranks[:, column].tolist() == [0, 1], "a seed is scored, but not put forward"
    assert merged.retrieval.scores[:, column].tolist() == [3.0, 1.0]


def test_limits_are_for_every_source_and_fill_a_page() -> None:
    assert set(LIMITS) == set(Retrieval)
    assert sum(LIMITS.values()) > MINIMUM


def test_trends_do_not_depend_on_when_they_are_read() -> None:
    views = [("a", 3, 0), ("b", 5, 40), ("c", 1, 1), ("d", 0, 0)]
    table = table_of(*(updated(item, categories=[(item > "b" and "X") or "Y"]) for item, _, _ in views))
    for item, times, age in views:
        for _ in range(times):
            table.fold(event("view", item=item, at=NOW - age * 24 * HOUR_MS), NOW)
    before = Trends.of(table, all_rows(table))
    table.fold(event("cart", item="d", at=NOW + 900 * HOUR_MS), NOW + 900 * HOUR_MS)
    after = Trends.of(table, all_rows(table))
    assert before.order.tolist() == [0, 2, 1, 3]
    assert after.order.tolist() == [3, 0, 2, 1]
    np.testing.assert_allclose(after.scores[:3], before.scores[:3] * 2 ** (-900 / (7 * 24)), rtol=1e-9)
    codes = [table.code("Y"), table.code("X")]
    assert [before.by_category[code].tolist() for code in codes] == [[0, 1], [2, 3]]
