from __future__ import annotations

from dataclasses import replace

import numpy as np

from shared.candidates.covisitation import LAST_CLICKS, covisitation
from shared.candidates.query import ListKind, Neighbours, Query
from shared.candidates.trends import Trends
from shared.features.aggregations import NEVER
from shared.features.items import ItemTable
from tests.unit.builders import NOW, shopper_of, view_of

CANDIDATES = np.array([2, 5, 9], np.int32)


def query_of(*lists: dict[int, float]) -> Query:
    """One seed a list, newest first; lists are padded to a width of 4."""
    indexes, scores = np.full((len(lists), 4), -1, np.int32), np.zeros((len(lists), 4), np.float32)
    for row, listed in enumerate(lists):
        indexes[row, : len(listed)], scores[row, : len(listed)] = list(listed), list(listed.values())
    trends = Trends(np.zeros(10), np.zeros(10, np.int64), np.full(10, NEVER), np.full(10, -1), np.zeros(10))
    user, seeds = view_of(shopper_of(), ItemTable()), np.arange(len(lists), dtype=np.int32)
    known = {ListKind.COOCCURRENCE: Neighbours(indexes, scores)}
    allowed = np.ones(10, np.bool_)
    return Query(user, None, seeds, np.ones(len(lists)), seeds, known, trends, NOW, allowed)  # type: ignore[arg-type]  # not read here


def test_scores_count_against_the_best_of_their_list_and_add_up() -> None:
    found = covisitation(CANDIDATES, query_of({9: 8.0, 2: 2.0}, {5: 0.5, 2: 0.25}))
    assert found.dtype == np.float32
    assert found[:, 0].tolist() == [0.25, 0.0, 1.0]
    assert found[:, 1].tolist() == [0.75, 1.0, 1.0]


def test_what_is_no_candidate_counts_for_none() -> None:
    # Beside candidates, before the first and beyond the last; the best of a list need not be a candidate.
    assert covisitation(CANDIDATES, query_of({8: 4.0, 1: 4.0, 3: 4.0, 2: 1.0}, {11: 1.0})).tolist() == [
        [0.25, 0.25],
        [0.0, 0.0],
        [0.0, 0.0],
    ]


def test_only_the_last_clicks_count() -> None:
    found = covisitation(CANDIDATES, query_of(*[{5: 1.0}] * LAST_CLICKS, {2: 1.0}))
    assert found.tolist() == [[0, 0], [1, LAST_CLICKS], [0, 0]]


def test_without_lists_clicks_or_candidates_nothing_is_said() -> None:
    assert not covisitation(CANDIDATES, replace(query_of({5: 1.0}), neighbours={})).any()
    assert not covisitation(CANDIDATES, query_of()).any()
    assert not covisitation(CANDIDATES, query_of({}, {})).any()
    assert covisitation(np.empty(0, np.int32), query_of({5: 1.0})).shape == (0, 2)
