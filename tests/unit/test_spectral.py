"""The low-pass filter: singular vectors against LAPACK's, a folded-in user against the filter itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from batch.models import spectral as spectral_module
from batch.models.als import AlsParams, fit_als
from batch.models.spectral import SpectralParams, fit_spectral, leading_vectors
from shared.candidates.query import History

FILTER = SpectralParams(user_length=-0.5, popularity=-0.3, strength=0.0, weight_power=1.0, iterations=30)
PARAMS = AlsParams(factor_model="spectral", factors=5, spectral=FILTER)


def shop(users: int = 80, items: int = 30, seed: int = 0) -> sparse.csr_array:
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.5, 5, (users, items)) * (generator.random((users, items)) < 0.2)
    weights[:, -1] = 0
    return sparse.csr_array(weights.astype(np.float32))


def scaled(weights: sparse.csr_array, user_length: float, popularity: float) -> NDArray[np.float64]:
    dense = weights.toarray().astype(np.float64)
    users, items = dense.sum(axis=1, keepdims=True), dense.sum(axis=0)
    return np.asarray(
        np.where(users > 0, users, 1) ** user_length * dense * np.where(items > 0, items, 1) ** popularity
    )


def test_the_vectors_are_lapacks() -> None:
    matrix = shop()
    found, values = leading_vectors(matrix, 5, iterations=40, seed=1)
    _, strengths, rows = np.linalg.svd(matrix.toarray().astype(np.float64))
    expected = rows[:5].T
    assert values == pytest.approx(strengths[:5], rel=1e-4)
    assert np.abs(np.sum(found * expected, axis=0)) == pytest.approx(np.ones(5), abs=1e-4)


def test_a_folded_in_user_is_her_filtered_history() -> None:
    weights = shop()
    fitted = fit_als(weights, PARAMS, seed=1)
    vectors = np.linalg.svd(scaled(weights, -0.5, -0.3))[2][:5].T
    history = History(np.array([4, 9, 2], np.int32), np.array([1.0, 5.0, 3.0]), np.arange(3), np.ones(3, np.int64))
    row = np.zeros(30)
    row[[4, 9, 2]] = np.array([1.0, 5.0, 3.0]) * 0.8 ** np.arange(3)
    expected = row @ vectors @ vectors.T
    scores = fitted.factors @ fitted.fold_in(history, 0.8, 100)
    assert scores / np.linalg.norm(scores) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)
    assert fitted.fold_in_params() == {"regularization": 0.0, "alpha": 1.0, "projection": 1.0}


def test_a_filter_may_take_popular_items_down_on_the_way_in_alone() -> None:
    weights = shop()
    leaning = replace(FILTER, target_popularity=0.5, length_power=-1.0)
    fitted = fit_als(weights, replace(PARAMS, spectral=leaning), seed=1)
    assert fitted.fold_in_params()["length_power"] == -1.0
    popularity = np.where(weights.sum(axis=0) > 0, weights.sum(axis=0), 1.0)
    vectors = np.linalg.svd(scaled(weights, -0.5, -0.3))[2][:5].T * np.sqrt(popularity)[:, None]
    vectors[-1] = 0
    history = History(np.array([4, 9, 29], np.int32), np.array([1.0, 5.0, 2.0]), np.arange(3), np.ones(3, np.int64))
    unit = vectors[[4, 9]] / np.linalg.norm(vectors[[4, 9]], axis=1, keepdims=True)
    expected = vectors @ (np.array([1.0, 5.0 * 0.8]) @ unit)
    scores = fitted.factors @ fitted.fold_in(history, 0.8, 100)
    assert np.isfinite(scores).all()
    assert scores / np.linalg.norm(scores) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)


def test_the_exponents_are_those_of_the_sums() -> None:
    weights = shop()
    params = SpectralParams(user_length=-1.0, popularity=0.5, strength=0.5, weight_power=0.5, iterations=40)
    found = fit_spectral(weights, 4, params, seed=1)
    _, strengths, rows = np.linalg.svd(scaled(weights.sqrt(), -1.0, 0.5))
    vectors, lengths = rows[:4].T, np.linalg.norm(found, axis=0)
    assert lengths / lengths[0] == pytest.approx(np.sqrt(strengths[:4] / strengths[0]), rel=1e-3)
    unit = found / lengths
    assert np.abs(np.sum(unit * vectors, axis=0)) == pytest.approx(np.ones(4), abs=1e-3)
    assert np.linalg.norm(found[:-1], axis=1).mean() == pytest.approx(1)
    assert not found[-1].any()  # nobody touched it


def test_blocks_of_users_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = shop()
    whole = fit_als(weights, PARAMS, seed=1)
    assert fit_als(weights, PARAMS, seed=1).factors.tobytes() == whole.factors.tobytes()
    assert (
        fit_als(weights, replace(PARAMS, spectral=replace(FILTER, iterations=1)), seed=1).factors.tobytes()
        != whole.factors.tobytes()
    )
    monkeypatch.setattr(spectral_module, "_USERS_AT_ONCE", 7)
    sliced = fit_als(weights, PARAMS, seed=2)
    assert sliced.factors @ sliced.factors.T == pytest.approx(whole.factors @ whole.factors.T, abs=1e-3)


def test_numbering_items_anew_changes_nothing() -> None:
    weights = shop()
    order = np.random.default_rng(5).permutation(30)
    plain, moved = (fit_als(each, PARAMS, seed=1).factors for each in (weights, sparse.csr_array(weights[:, order])))
    assert moved @ moved.T == pytest.approx((plain @ plain.T)[np.ix_(order, order)], abs=1e-3)


def test_what_the_shop_lacks_is_zero() -> None:
    tiny = sparse.csr_array(np.array([[1, 1, 0], [2, 2, 0]], np.float32))
    factors = fit_als(tiny, PARAMS, seed=0).factors
    assert factors.shape == (3, 5)
    assert np.count_nonzero(np.abs(factors).max(axis=0)) == 1
    assert not fit_als(sparse.csr_array((4, 3), dtype=np.float32), PARAMS, seed=0).factors.any()
