"""Co-occurrence by hand, against a naive double loop, and indifferent to how items are numbered."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from batch.models.cooccurrence import CooccurrenceParams, TransitionParams, fit_cooccurrence
from batch.models.neighbour_lists import list_heads, tie_ranks, top_of_dense, top_of_sparse

PLAIN = CooccurrenceParams(
    lag_decay=0.5, backward=0.25, user_length=0, source_popularity=0, target_popularity=0, window=5
)
Event = tuple[int, int, int, float]
"""(user, item, at, strength)"""


def fit(events: list[Event], items: int, params: CooccurrenceParams = PLAIN) -> sparse.csr_array:
    return fit_cooccurrence(
        np.array([event[0] for event in events], dtype=np.int32),
        np.array([event[1] for event in events], dtype=np.int32),
        np.array([event[2] for event in events], dtype=np.int64),
        np.array([event[3] for event in events], dtype=np.float32),
        item_count=items,
        params=params,
    )


def test_forward_counts_more_than_backward_and_fades_with_steps() -> None:
    found = fit([(0, 0, 10, 1), (0, 1, 20, 1), (0, 2, 30, 1)], 3).toarray()
    assert found == pytest.approx(np.array([[0, 0.5, 0.25], [0.125, 0, 0.5], [0.0625, 0.125, 0]]))


def test_transitions_know_no_way_back() -> None:
    params = TransitionParams(lag_decay=0.5, user_length=0, source_popularity=0, target_popularity=0)
    found = fit([(0, 0, 10, 1), (0, 1, 20, 1), (0, 2, 30, 1)], 3, params).toarray()
    assert found == pytest.approx(np.array([[0, 0.5, 0.25], [0, 0, 0.5], [0, 0, 0]]))


def test_one_instant_is_one_step_both_ways() -> None:
    found = fit([(0, 0, 10, 1), (0, 1, 10, 1), (0, 2, 20, 1)], 3).toarray()
    assert found[0, 1] == found[1, 0] == 0.5
    assert found[0, 2] == found[1, 2] == 0.5
    assert found[2, 0] == found[2, 1] == 0.125


def test_users_do_not_mix_and_a_repeat_is_no_neighbour_of_itself() -> None:
    found = fit([(0, 0, 10, 1), (0, 0, 20, 1), (1, 1, 30, 1)], 2)
    assert found.nnz == 0


def test_view_cart_purchase_of_one_item_is_one_row_of_the_greatest_strength() -> None:
    found = fit([(0, 1, 5, 1), (0, 0, 10, 1), (0, 0, 20, 2), (0, 0, 30, 4)], 2).toarray()
    assert found[1, 0] == 0.5 * 4


def test_the_window_bounds_pairs() -> None:
    events: list[Event] = [(0, item, item, 1.0) for item in range(8)]
    found = fit(events, 8).toarray()
    assert found[0, 5] > 0
    assert found[0, 6] == 0


def test_rows_keep_their_strongest_targets() -> None:
    events: list[Event] = [(0, item, item, 1.0) for item in range(5)]
    found = fit(events, 5, replace(PLAIN, width=2))
    assert np.diff(found.indptr).tolist() == [2, 2, 2, 2, 2]
    assert found.toarray()[0].tolist() == [0, 0.5, 0.25, 0, 0]


def test_no_interactions_give_an_empty_matrix() -> None:
    assert fit([], 4).shape == (4, 4)
    assert fit([], 4).nnz == 0


EVENTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 5), st.sampled_from([1.0, 3.0, 5.0])), max_size=25
).map(lambda events: sorted(events, key=lambda event: (event[0], event[2])))


def oracle(
    events: list[Event], items: int, params: CooccurrenceParams
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    rows: list[Event] = []
    for event in events:
        if rows and rows[-1][:2] == event[:2]:
            rows[-1] = (*rows[-1][:3], max(rows[-1][3], event[3]))
        else:
            rows.append(event)
    popularity = Counter(row[1] for row in rows)
    length = Counter(row[0] for row in rows)
    found = np.zeros((items, items))
    for later, (user, target, at, strength) in enumerate(rows):
        for earlier in range(max(0, later - params.window), later):
            other_user, source, other_at, other_strength = rows[earlier]
            if other_user != user or source == target:
                continue
            steps = len({row[2] for row in rows[earlier : later + 1]}) - 1
            weight = length[user] ** params.user_length * params.lag_decay ** max(steps, 1)
            found[source, target] += weight * strength
            found[target, source] += weight * other_strength * (1 if at == other_at else params.backward)
    for source in range(items):
        for target in range(items):
            found[source, target] *= max(popularity[source], 1) ** params.source_popularity
            found[source, target] *= max(popularity[target], 1) ** params.target_popularity
    return found


@given(events=EVENTS, window=st.integers(1, 8))
def test_agrees_with_a_double_loop(events: list[Event], window: int) -> None:
    params = CooccurrenceParams(window=window)
    assert fit(events, 5, params).toarray() == pytest.approx(oracle(events, 5, params), rel=1e-5)


def test_numbering_items_anew_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    events: list[Event] = [
        (user, int(generator.integers(0, 30)), int(generator.integers(0, 9)), 1.0)
        for user in range(20)
        for _ in range(12)
    ]
    events.sort(key=lambda event: (event[0], event[2]))
    new_number = generator.permutation(30)
    moved: list[Event] = [(user, int(new_number[item]), at, strength) for user, item, at, strength in events]
    plain = fit(events, 30, CooccurrenceParams()).toarray()
    again = fit(moved, 30, CooccurrenceParams()).toarray()
    assert again[np.ix_(new_number, new_number)] == pytest.approx(plain, rel=1e-6)


def test_lists_descend_and_pad_and_do_not_depend_on_the_slice() -> None:
    events: list[Event] = [(0, 0, 10, 1), (0, 1, 20, 1), (0, 2, 30, 1), (1, 3, 5, 1)]
    matrix = fit(events, 4)
    whole = list_heads(matrix, 0, 4, k=3)
    assert whole.indexes.tolist() == [[1, 2, -1], [2, 0, -1], [1, 0, -1], [-1, -1, -1]]
    assert whole.scores[0].tolist() == [0.5, 0.25, 0]
    part = list_heads(matrix, 1, 3, k=3)
    assert np.array_equal(part.indexes, whole.indexes[1:3])
    assert np.array_equal(part.scores, whole.scores[1:3])


def test_ties_follow_the_seed_and_not_the_index() -> None:
    scores = np.ones((1, 200), dtype=np.float32)
    ties = tie_ranks(200, seed=1)
    dense = top_of_dense(scores, 5, ties)
    assert dense.indexes[0].tolist() == np.argsort(ties)[:5].tolist()
    assert np.array_equal(top_of_sparse(sparse.csr_array(scores), 5, ties).indexes, dense.indexes)
    assert not np.array_equal(top_of_dense(scores, 5, tie_ranks(200, seed=2)).indexes, dense.indexes)
