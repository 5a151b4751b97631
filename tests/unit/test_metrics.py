"""The metrics by hand and against a naive oracle; the bootstrap on cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batch.metrics import (
    bootstrap_mean,
    bootstrap_ratio,
    catalogue_coverage,
    hits_matrix,
    mrr_at,
    ndcg_at,
    recall_at,
)


def counts(positives: list[set[int]]) -> NDArray[np.int64]:
    return np.array([len(each) for each in positives], dtype=np.int64)


def test_by_hand() -> None:
    ranked = np.array([[3, 1, 2], [5, 4, -1], [7, 8, 9]])
    positives: list[set[int]] = [{1, 2, 6}, {5}, set()]
    hits = hits_matrix(ranked, positives)
    assert hits.tolist() == [[False, True, True], [True, False, False], [False, False, False]]
    assert recall_at(hits, counts(positives), 3) == pytest.approx([2 / 3, 1, 0])
    assert recall_at(hits, counts(positives), 1) == pytest.approx([0, 1, 0])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg_at(hits, counts(positives), 3) == pytest.approx([(1 / math.log2(3) + 1 / 2) / ideal, 1, 0])
    assert mrr_at(hits, 3) == pytest.approx([1 / 2, 1, 0])
    assert mrr_at(hits, 1) == pytest.approx([0, 1, 0])


def test_padding_is_never_a_hit() -> None:
    hits = hits_matrix(np.array([[-1, -1], [0, -1]]), [{0}, {1}])
    assert not hits.any()


def test_ideal_is_bounded_by_k() -> None:
    hits = hits_matrix(np.array([[0, 1]]), [{0, 1, 2, 3}])
    assert ndcg_at(hits, np.array([4]), 2) == pytest.approx([1])


def test_a_list_shorter_than_k_counts_its_missing_places() -> None:
    hits = hits_matrix(np.array([[0]]), [{0, 1}])
    assert ndcg_at(hits, np.array([2]), 20) == pytest.approx([1 / (1 + 1 / math.log2(3))])


def test_coverage_counts_each_item_once() -> None:
    ranked = np.array([[0, 1, 5], [1, 0, 6], [2, -1, -1]])
    assert catalogue_coverage(ranked, 10, 2) == pytest.approx(0.3)


def test_lists_and_positives_must_match() -> None:
    with pytest.raises(ValueError, match="2 ranked lists and 1 sets"):
        hits_matrix(np.zeros((2, 3), dtype=np.int64), [{1}])


QUERIES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 12), unique=True, min_size=6, max_size=6),
        st.sets(st.integers(0, 12), max_size=8),
        st.integers(0, 6),
    ),
    min_size=1,
    max_size=6,
)


@given(queries=QUERIES, k=st.integers(1, 8))
def test_agrees_with_naive_oracle(queries: list[tuple[list[int], set[int], int]], k: int) -> None:
    lists = [[item if place < length else -1 for place, item in enumerate(ranked)] for ranked, _, length in queries]
    positives = [wanted for _, wanted, _ in queries]
    hits = hits_matrix(np.array(lists), positives)
    recall = recall_at(hits, counts(positives), k)
    ndcg = ndcg_at(hits, counts(positives), k)
    mrr = mrr_at(hits, k)
    for row, (ranked, wanted) in enumerate(zip(lists, positives, strict=True)):
        places = [place for place, item in enumerate(ranked[:k], start=1) if item in wanted]
        assert recall[row] == pytest.approx(len(places) / len(wanted) if wanted else 0)
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
        assert ndcg[row] == pytest.approx(sum(1 / math.log2(place + 1) for place in places) / ideal if wanted else 0)
        assert mrr[row] == pytest.approx(1 / places[0] if places else 0)


def test_bootstrap_of_a_constant_ratio_is_that_ratio() -> None:
    b = np.random.default_rng(1).random(50)
    ratio = bootstrap_ratio(3 * b, b, np.arange(50) // 5, samples=200)
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx((3, 3, 3))


def test_bootstrap_is_seeded() -> None:
    generator = np.random.default_rng(2)
    a, b, users = generator.random(80), generator.random(80), np.arange(80) // 4
    assert bootstrap_ratio(a, b, users, seed=5) == bootstrap_ratio(a, b, users, seed=5)
    assert bootstrap_ratio(a, b, users, seed=5) != bootstrap_ratio(a, b, users, seed=6)


def test_bootstrap_matches_the_normal_interval_of_independent_users() -> None:
    difference = np.random.default_rng(3).normal(0.1, 1, 4000)
    interval = bootstrap_mean(difference, np.arange(4000), samples=2000)
    error = difference.std() / math.sqrt(4000)
    assert interval.low == pytest.approx(difference.mean() - 1.96 * error, abs=0.2 * error)
    assert interval.high == pytest.approx(difference.mean() + 1.96 * error, abs=0.2 * error)


def test_queries_of_one_user_are_drawn_together() -> None:
    per_user = np.random.default_rng(4).normal(0, 1, 100)
    alone = bootstrap_mean(per_user, np.arange(100))
    repeated = bootstrap_mean(np.repeat(per_user, 25), np.repeat(np.arange(100), 25))
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=1e-9)


def test_the_order_of_queries_and_the_numbers_of_users_change_nothing() -> None:
    generator = np.random.default_rng(5)
    a, b, users = generator.random(60), generator.random(60), np.repeat(np.arange(20), 3)
    order = generator.permutation(60)
    plain = bootstrap_ratio(a, b, users)
    shuffled = bootstrap_ratio(a[order], b[order], users[order] * 7 + 100)
    assert (shuffled.estimate, shuffled.low, shuffled.high) == pytest.approx((plain.estimate, plain.low, plain.high))


def test_ratio_to_nothing_is_infinite() -> None:
    ratio = bootstrap_ratio(np.ones(10), np.zeros(10), np.arange(10), samples=50)
    assert math.isinf(ratio.estimate)
    assert math.isinf(ratio.low)


def test_bootstrap_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="3 and 2 values"):
        bootstrap_ratio(np.zeros(3), np.zeros(2), np.zeros(3, dtype=np.int64))
