"""ALS: the documented normal equations are those implicit solves; structure is found; seeds decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits

from batch.interactions import CART, PURCHASE, REMOVE_FROM_CART, VIEW
from batch.models import als as fitting
from batch.models.als import AlsParams, fit_als, interaction_weights, net_weights
from batch.models.similar_items import unit_rows
from shared.candidates import als as als_module
from shared.candidates.als import AlsSource, ItemFactors
from shared.candidates.query import History, Query

DAY_MS = 24 * 3600 * 1000
PARAMS = AlsParams(factors=8, iterations=10, regularization=0.3, alpha=0.5)


def two_tastes(seed: int = 0) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """40 users, 20 items: even users touch items 0..9, odd ones 10..18; item 19 nobody."""
    generator = np.random.default_rng(seed)
    user = np.repeat(np.arange(40, dtype=np.int32), 6)
    item = (generator.integers(0, 9, len(user)) + 10 * (user % 2)).astype(np.int32)
    return user, item, generator.uniform(0.5, 5, len(user)).astype(np.float32)


def tastes() -> csr_array:
    user, item, weight = two_tastes()
    return csr_array(net_weights(user, item, weight, 40, 20))


def fit(seed: int = 3, **changed: Any) -> ItemFactors:
    return fit_als(tastes(), replace(PARAMS, **changed), seed=seed)


def test_the_documented_equations_give_implicits_user_factors() -> None:
    fitted = fit(alpha=0.5)
    weights = csr_matrix(tastes())
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=8, regularization=0.3, alpha=0.5, num_threads=1)
        model.item_factors = fitted.factors
        solved = model.recalculate_user(np.arange(40), weights)
    for row in range(40):
        stored = slice(weights.indptr[row], weights.indptr[row + 1])
        touched = fitted.factors[weights.indices[stored]].astype(np.float64)
        confidence = fitted.alpha * weights.data[stored].astype(np.float64)
        left = fitted.gram + fitted.regularization * np.eye(8) + touched.T @ ((confidence - 1)[:, None] * touched)
        expected = np.linalg.solve(left, touched.T @ confidence)
        assert solved[row] == pytest.approx(expected, abs=2e-4)


def test_serving_folds_a_user_in_by_the_same_equations() -> None:
    fitted = fit(alpha=0.5)
    liked = np.array([4], dtype=np.int32)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=8, regularization=0.3, alpha=0.5, num_threads=1)
        model.item_factors = fitted.factors
        solved = model.recalculate_user(
            0, csr_matrix((np.array([5], dtype=np.float32), liked, np.array([0, 1])), shape=(1, 20))
        )
    served = fitted.fold_in(History(liked, np.array([5.0]), np.array([0]), np.array([1])), 0.9, 100)
    assert served == pytest.approx(solved, abs=2e-4)


@pytest.mark.parametrize("scaling", [0.5, 1.0])
def test_a_rows_regularization_grows_with_its_length(monkeypatch: pytest.MonkeyPatch, scaling: float) -> None:
    """Fitted to the end, the item factors solve the documented equations of users that solve them themselves.

    Rows are short, so that each group of rows holds one length only.
    """
    monkeypatch.setattr(fitting, "_THREADS", 1)
    weights = csr_array(tastes()[:10])
    assert max(np.diff(side.indptr).max() for side in (weights, csr_array(weights.T))) <= 6
    params = replace(PARAMS, iterations=200, factors=3, frequency_scaling=scaling, regularization=0.1)
    factors = fit_als(weights, params, seed=3).factors
    users = np.array([solution(factors, weights[[row]], scaling) for row in range(10)])
    again = np.array([solution(users, csr_array(weights[:, [column]].T), scaling) for column in range(19)])
    assert again == pytest.approx(factors[:19], abs=5e-4)
    assert np.abs(again).max() > 0.3


def solution(factors: NDArray[np.floating], row: csr_array, scaling: float) -> NDArray[np.float64]:
    wide = factors.astype(np.float64)
    liked, confidence = wide[row.indices], 0.5 * row.data.astype(np.float64)
    regularization = 0.1 * (1 + row.nnz) ** scaling
    left = wide.T @ wide + regularization * np.eye(wide.shape[1]) + liked.T @ ((confidence - 1)[:, None] * liked)
    return np.asarray(np.linalg.solve(left, liked.T @ confidence))


def test_serving_scales_a_users_regularization_as_fitting_does() -> None:
    fitted = fit(frequency_scaling=1.0, regularization=0.1)
    row = tastes()[[5]]
    count = row.nnz
    history = History(row.indices, row.data.astype(np.float64), np.arange(count), np.ones(count, np.int64))
    assert fitted.fold_in(history, 1.0, 100) == pytest.approx(solution(fitted.factors, row, 1.0), abs=1e-5)
    assert fitted.fold_in(history, 1.0, 2) == pytest.approx(
        solution(fitted.factors, csr_array((row.data[:2], row.indices[:2], [0, 2]), shape=(1, 20)), 1.0), abs=1e-5
    )


def test_what_the_fold_in_needs_travels_by_name_and_old_releases_lack_what_is_newer() -> None:
    fitted = fit(frequency_scaling=0.5)
    told = fitted.fold_in_params()
    assert told == {"regularization": 0.3, "alpha": 0.5, "frequency_scaling": 0.5}
    loaded = ItemFactors.from_params(fitted.factors, told)
    assert loaded.fold_in_params() == told
    assert np.array_equal(loaded.gram, fitted.gram)
    old = ItemFactors.of(fitted.factors, 0.3, 0.5)
    assert old.fold_in_params() == {"regularization": 0.3, "alpha": 0.5}
    assert old.frequency_scaling == 0.0


def test_the_seed_decides_every_byte_of_a_scaled_fit_too() -> None:
    first, again, other = (fit(seed=seed, frequency_scaling=1.0).factors for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert np.abs(first[19]).max() < 1e-6


def test_tastes_separate() -> None:
    unit = unit_rows(fit().factors)
    cosine = unit @ unit.T
    inside = cosine[:9, :9][~np.eye(9, dtype=bool)].mean()
    across = cosine[:9, 10:19].mean()
    assert inside > across + 0.3


def test_an_item_nobody_touched_has_no_direction() -> None:
    assert np.abs(fit().factors[19]).max() < 1e-6


def test_the_seed_decides_every_byte() -> None:
    assert fit(seed=3).factors.tobytes() == fit(seed=3).factors.tobytes()
    assert fit(seed=3).factors.tobytes() != fit(seed=4).factors.tobytes()
    assert fit().factors.dtype == np.float32
    assert fit().factors.shape == (20, 8)


def test_alpha_scales_the_weights() -> None:
    doubled = fit_als(csr_array(2 * tastes()), replace(PARAMS, alpha=0.25), seed=3)
    assert doubled.factors == pytest.approx(fit(alpha=0.5).factors, abs=1e-6)
    assert np.abs(fit(alpha=2.0).factors - fit(alpha=0.5).factors).max() > 0.01


def test_numbering_items_anew_keeps_who_is_alike() -> None:
    user, item, weight = two_tastes()
    new_number = np.random.default_rng(9).permutation(20).astype(np.int32)
    plain = fit().factors
    moved = fit_als(csr_array(net_weights(user, new_number[item], weight, 40, 20)), PARAMS, seed=3).factors[new_number]
    groups = [unit_rows(each)[:19] @ unit_rows(each)[:19].T for each in (plain, moved)]
    assert all(np.array_equal(np.argsort(-each[0])[:9] // 10, np.zeros(9)) for each in groups)


def test_net_weights_add_up_and_drop_what_was_taken_back() -> None:
    net = net_weights(
        np.array([0, 0, 0, 1, 1], dtype=np.int32),
        np.array([1, 1, 2, 0, 2], dtype=np.int32),
        np.array([3, -3, 2, 1, -3], dtype=np.float32),
        2,
        3,
    )
    assert net.toarray().tolist() == [[0, 0, 2], [1, 0, 0]]
    assert net.nnz == 2


def test_purchases_weigh_more_than_carts_more_than_views_and_all_fade() -> None:
    codes = np.array([VIEW, CART, PURCHASE, REMOVE_FROM_CART], dtype=np.int8)
    now_at = 1_000 * DAY_MS
    fresh = interaction_weights(codes, np.full(4, now_at), now_at)
    assert fresh.tolist() == [1, 3, 5, -3]
    aged = interaction_weights(codes, np.full(4, now_at - 90 * DAY_MS), now_at, half_life_days=45)
    assert aged == pytest.approx(fresh / 4)
    ahead = interaction_weights(codes, np.full(4, now_at + DAY_MS), now_at)
    assert ahead.tolist() == fresh.tolist()


@pytest.mark.parametrize("count", [0, 1, 20, 200])
def test_few_eligible_items_are_ranked_as_in_a_scan_of_all(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    generator = np.random.default_rng(2)
    source = AlsSource(ItemFactors.of(generator.normal(size=(400, 8)).astype(np.float32), 0.1, 2.0))
    eligible = np.zeros(403, np.bool_)
    eligible[generator.choice(403, count, replace=False)] = True
    touched = np.array([3, 7, 401], np.int32)
    history = History(touched, np.ones(3), np.arange(3), np.ones(3, np.int64))
    query = Query(None, history, touched, np.ones(3), np.arange(3), {}, None, 0, eligible)  # type: ignore[arg-type]  # ALS reads neither
    vector = generator.normal(size=8).astype(np.float32)
    lists = []
    for few_in in (0, 10**9):
        monkeypatch.setattr(als_module, "FEW_IN", few_in)
        lists.append(source.consider_for(vector, query).top(15))
    assert lists[0].indexes.tolist() == lists[1].indexes.tolist()
    np.testing.assert_allclose(lists[0].scores, lists[1].scores, rtol=1e-5)
    assert not {3, 7} & set(lists[0].indexes.tolist())
