"""The walk by hand: one hop, the way back, exponents, two hops; a cap on long users; numbering tells nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from batch.models import neighbour_lists
from batch.models.neighbour_lists import prune_rows, tie_ranks
from batch.models.walk import WalkParams, fit_walk

PLAIN = WalkParams(source_popularity=0, user_length=0, target_popularity=0)
CHAIN: list[list[float]] = [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
"""Items in a row, each user between two of them."""


def fit(rows: list[list[float]], params: WalkParams = PLAIN, seed: int = 0) -> NDArray[np.float32]:
    found = fit_walk(sparse.csr_array(np.array(rows, dtype=np.float32)), params, seed=seed)
    assert found.dtype == np.float32
    assert (found.data > 0).all()
    return np.asarray(found.toarray())


def random_weights(users: int, items: int, seed: int = 0) -> sparse.csr_array:
    draw = np.random.default_rng(seed)
    matrix = sparse.random_array((users, items), density=0.2, rng=draw, dtype=np.float32)
    return sparse.csr_array(matrix)


def test_one_hop_counts_the_users_two_items_share_and_the_diagonal_all_of_an_items() -> None:
    assert fit([[1, 1, 0], [1, 1, 0], [0, 1, 1]]).tolist() == [[2, 2, 0], [2, 3, 1], [0, 1, 1]]


def test_exponents_take_sources_users_and_targets_down() -> None:
    rows: list[list[float]] = [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert fit(rows, replace(PLAIN, source_popularity=-1))[0].tolist() == [1, 1, 0.5, 0.5]
    assert fit(rows, replace(PLAIN, user_length=-1))[0].tolist() == [0.75, 0.75, 0.25, 0.25]
    assert fit(rows, replace(PLAIN, target_popularity=-1))[0].tolist() == [1, 1, 1, 1]
    both = replace(PLAIN, source_popularity=-1, user_length=-1)
    assert fit(rows, both).sum(axis=1) == pytest.approx(np.ones(4)), "the steps of a walk sum to 1"


def test_weights_count_with_their_power() -> None:
    rows: list[list[float]] = [[4, 9, 0]]
    assert fit(rows)[0].tolist() == [1, 1, 0]
    assert fit(rows, replace(PLAIN, weight_power=0.5))[0].tolist() == [4, 6, 0]
    assert fit(rows, replace(PLAIN, weight_power=0.5, source_popularity=-1))[1].tolist() == [2, 3, 0]


def test_the_way_back_has_a_weight_of_its_own() -> None:
    rows: list[list[float]] = [[1, 1, 0], [1, 1, 0], [0, 1, 1]]
    assert fit(rows, replace(PLAIN, self_weight=0.5)).tolist() == [[1, 2, 0], [2, 1.5, 1], [0, 1, 0.5]]
    assert np.diag(fit(rows, replace(PLAIN, self_weight=0))).tolist() == [0, 0, 0]


def test_a_second_hop_reaches_what_no_user_shares() -> None:
    plain = fit(CHAIN, replace(PLAIN, self_weight=0))
    assert plain[0].tolist() == [0, 1, 0, 0]
    # One hop off the diagonal: rows sum to 1, 2, 2, 1, 1.5 on average; two hops from item 0 are back home or at item 2.
    twice = fit(CHAIN, replace(PLAIN, self_weight=0, second=0.75))
    assert twice[0].tolist() == [0.5, 1, 0.5, 0]
    assert twice[1].tolist() == [1, 1, 1, 0.5]
    home = fit(CHAIN, replace(PLAIN, self_weight=2, second=0.75))
    assert (home - np.diag(np.diag(home))).tolist() == (twice - np.diag(np.diag(twice))).tolist(), "no step stays"


def test_a_second_hop_below_zero_takes_away_and_leaves_nothing_negative() -> None:
    rows: list[list[float]] = [[1, 1, 0], [1, 1, 0], [0, 1, 1], [1, 0, 1]]
    plain = fit(rows, replace(PLAIN, self_weight=0))
    step = plain @ plain
    less = fit(rows, replace(PLAIN, self_weight=0, second=-0.5))
    assert less == pytest.approx(np.maximum(plain - 0.5 * step / plain.sum(axis=1).mean(), 0))
    assert (less < plain).any()


def test_of_long_users_the_heaviest_items_take_part_and_equal_ones_by_seed() -> None:
    heavy = fit([[1, 2, 3, 4]], replace(PLAIN, longest=2))
    assert np.flatnonzero(heavy.any(axis=0)).tolist() == [2, 3]
    equal: list[list[float]] = [[1.0] * 50]
    kept = [np.flatnonzero(fit(equal, replace(PLAIN, longest=7), seed).any(axis=0)).tolist() for seed in (1, 1, 2)]
    assert len(kept[0]) == 7
    assert kept[0] == kept[1] != kept[2]
    assert kept[0] != list(range(7))


def test_rows_keep_their_strongest(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(60, 40)
    whole = fit_walk(weights, replace(PLAIN, user_length=-0.7, weight_power=1.0, second=0.5))
    monkeypatch.setattr(neighbour_lists, "_PAIRS_AT_ONCE", 50)
    pieces = fit_walk(weights, replace(PLAIN, user_length=-0.7, weight_power=1.0, second=0.5))
    assert np.array_equal(pieces.toarray(), whole.toarray()), "blocks are no matter"
    once = fit_walk(weights, replace(PLAIN, user_length=-0.7, weight_power=1.0))
    narrow = fit_walk(weights, replace(PLAIN, user_length=-0.7, weight_power=1.0, width=5))
    assert np.diff(once.indptr).max() > 5
    assert np.array_equal(narrow.toarray(), prune_rows(once, 5, tie_ranks(40, 0)).toarray())


def test_numbering_items_and_users_anew_changes_nothing() -> None:
    weights = random_weights(80, 50, seed=3)
    draw = np.random.default_rng(4)
    users, items = draw.permutation(80), draw.permutation(50)
    params = WalkParams(weight_power=1.0, second=0.4, second_width=8, longest=9, width=12)
    plain, moved = fit_walk(weights, params), fit_walk(sparse.csr_array(weights[users][:, items]), params)
    assert moved.toarray() == pytest.approx(plain.toarray()[np.ix_(items, items)], rel=1e-5)


def test_nobody_and_nothing_give_an_empty_matrix() -> None:
    assert fit_walk(sparse.csr_array((0, 3), dtype=np.float32)).shape == (3, 3)
    assert fit([[0, 0, 0]], replace(WalkParams(), second=0.5)).tolist() == [[0, 0, 0]] * 3


def test_pruned_rows_keep_ties_by_the_seeded_order() -> None:
    ties = tie_ranks(200, seed=1)
    scores = sparse.csr_array(np.r_[np.full(100, 1.0), np.full(100, 2.0)].reshape(1, -1))
    kept = prune_rows(scores, 103, ties)
    assert set(range(100, 200)) <= set(kept.indices.tolist())
    assert sorted(set(kept.indices.tolist()) - set(range(100, 200))) == sorted(np.argsort(ties[:100])[:3].tolist())
    assert np.array_equal(prune_rows(scores, 200, ties).toarray(), scores.toarray())
