"""Item-item regression: the closed form by hand, what the local form leaves out, checked inverses, a fair order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from batch.models import linear as linear_module
from batch.models.linear import (
    InverseError,
    LinearParams,
    exact_linear,
    fit_linear,
    inverse_residual,
    local_targets,
    normal_equations,
    strongest_targets,
)

PLAIN = LinearParams(regularization=2.0, weight_power=0.0, list_size=30, neighbours=30)
LOCAL = replace(PLAIN, exact_items=0)


def shop(users: int = 60, items: int = 14, share: float = 0.45, seed: int = 0) -> sparse.csr_array:
    """Weights above 0 of a share of all pairs; with the defaults every two items have a user in common."""
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.5, 5, (users, items)) * (generator.random((users, items)) < share)
    return sparse.csr_array(weights.astype(np.float32))


def by_definition(gram: NDArray[np.float64], penalty: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column solved on its own, with the target's own row struck out: what EASE's closed form sums up."""
    items = len(gram)
    found = np.zeros((items, items))
    for target in range(items):
        others = np.flatnonzero(np.arange(items) != target)
        left = gram[np.ix_(others, others)] + np.diag(penalty[others])
        found[others, target] = np.linalg.solve(left, gram[others, target])
    return found


def test_three_items_by_hand() -> None:
    # Users {0, 1}, {0, 1}, {0, 2}: G = [[3, 2, 1], [2, 2, 0], [1, 0, 1]], and each unit of penalty adds one to the
    # diagonal. Item 1 of items 0 and 2: [[4, 1], [1, 2]] b = [2, 0], so b = (4/7, -2/7).
    weights = sparse.csr_array(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1]], np.float32))
    found = fit_linear(weights, replace(PLAIN, regularization=1.0)).toarray()
    assert found[0, 1] == pytest.approx(4 / 7)
    assert found[2, 1] == 0  # negative: what speaks against an item is no list's
    assert found.diagonal().tolist() == [0, 0, 0]


@pytest.mark.parametrize("scaling", [0.0, 0.5])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_both_forms_are_the_regression_of_each_item_on_all_others(scaling: float, power: float) -> None:
    weights = shop()
    params = replace(PLAIN, popularity_scaling=scaling, weight_power=power, user_length=-0.5)
    gram, penalty = normal_equations(weights, params, 0)
    assert gram.nnz == 14 * 14
    expected = np.maximum(by_definition(gram.toarray(), penalty), 0)
    assert fit_linear(weights, params).toarray() == pytest.approx(expected, abs=1e-6)
    assert fit_linear(weights, replace(params, exact_items=0)).toarray() == pytest.approx(expected, abs=1e-5)


def test_weights_scale_lengths_and_popularity_mean_what_they_say() -> None:
    weights = sparse.csr_array(np.array([[4, 4, 4, 4], [1, 0, 0, 0]], np.float32))
    gram, penalty = normal_equations(
        weights, replace(PLAIN, weight_power=0.5, user_length=-1.0, popularity_scaling=1.0), 0
    )
    # Roots 2 and 1, over the root of the users' lengths: four ones and a one; their mean square is one already.
    assert gram.toarray()[0].tolist() == pytest.approx([2, 1, 1, 1])
    assert penalty.tolist() == pytest.approx([2 * 3 / 2.25] + [2 * 2 / 2.25] * 3)
    assert normal_equations(7 * weights, PLAIN, 0)[0].toarray() == pytest.approx(
        normal_equations(weights, PLAIN, 0)[0].toarray()
    )


def test_the_local_form_reads_the_neighbours_alone() -> None:
    weights = shop()
    params = replace(LOCAL, neighbours=4, neighbour_popularity=0.0)
    gram, penalty = normal_equations(weights, params, 0)
    dense = gram.toarray().astype(np.float64)
    found = local_targets(gram, penalty, 3, 4, params, seed=0)
    met = dense[3].copy()
    met[3] = 0
    assert set(found.sources[0].tolist()) == set(np.argsort(-met)[:4].tolist())
    chosen = found.sources[0]
    expected = np.linalg.solve(dense[np.ix_(chosen, chosen)] + np.diag(penalty[chosen]), dense[chosen, 3])
    assert found.scores[0] == pytest.approx(expected, abs=1e-5)


def test_any_slicing_gives_the_same_bytes() -> None:
    weights = shop(items=20, share=0.2)
    params = replace(LOCAL, neighbours=5, list_size=6)
    gram, penalty = normal_equations(weights, params, 0)
    parts = [local_targets(gram, penalty, *ends, params, seed=0) for ends in ((13, 20), (0, 1), (1, 13))]
    whole, sliced = fit_linear(weights, params), strongest_targets(parts, 20, params, 0)
    assert np.array_equal(whole.toarray(), sliced.toarray())
    assert whole.data.dtype == np.float32
    assert np.diff(whole.indptr).max() <= 6
    assert whole.data.min() > 0


@pytest.mark.parametrize("params", [PLAIN, replace(LOCAL, neighbours=6, list_size=8)])
def test_numbering_items_anew_changes_nothing(params: LinearParams) -> None:
    weights = shop(items=18)
    new_number = np.random.default_rng(4).permutation(18)
    moved = sparse.csr_array(weights.toarray()[:, np.argsort(new_number)])
    found = fit_linear(moved, params).toarray()[np.ix_(new_number, new_number)]
    assert found == pytest.approx(fit_linear(weights, params).toarray(), abs=1e-5)


@pytest.mark.parametrize("params", [PLAIN, LOCAL])
def test_an_item_nobody_met_is_in_no_list(params: LinearParams) -> None:
    weights = sparse.csr_array(np.pad(shop(items=6).toarray(), ((0, 1), (0, 1))))
    found = fit_linear(weights, params)
    assert found.shape == (7, 7)
    assert found[[6]].nnz == 0
    assert found[:, [6]].nnz == 0
    assert fit_linear(sparse.csr_array((3, 4), dtype=np.float32), params).nnz == 0


def test_of_a_long_history_the_heaviest_items_count() -> None:
    weights = sparse.csr_array(np.array([[5, 4, 3, 2, 1]] * 3, np.float32))
    found = fit_linear(weights, replace(PLAIN, longest_history=3))
    assert sorted({*found.nonzero()[0].tolist(), *found.nonzero()[1].tolist()}) == [0, 1, 2]


def test_a_wrong_inverse_is_noticed() -> None:
    gram, penalty = normal_equations(shop(), PLAIN, 0)
    whole = gram + sparse.diags_array(penalty)
    inverse = np.linalg.inv(whole.toarray())
    assert inverse_residual(sparse.csr_array(whole), np.asfortranarray(inverse)) < 1e-12
    inverse[9, 2] += 1e-4
    assert inverse_residual(sparse.csr_array(whole), np.asfortranarray(inverse)) > 1e-5


def test_without_a_sound_inverse_the_local_form_steps_in(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = shop()
    monkeypatch.setattr(linear_module, "RESIDUAL_TOLERANCE", 0.0)
    with pytest.warns(RuntimeWarning, match="off by"):
        found = fit_linear(weights, PLAIN)
    assert found.toarray() == pytest.approx(fit_linear(weights, LOCAL).toarray(), abs=1e-5)
    singular = sparse.csr_array(np.ones((3, 3)))
    with pytest.raises(InverseError, match="no Cholesky factor"):
        exact_linear(singular, np.zeros(3), PLAIN, 0)


def test_no_inverse_is_tried_where_lapack_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "MOST_EXACT_ITEMS", 10)
    with pytest.raises(ValueError, match="set exact_items to 10 at most"):
        fit_linear(shop(), PLAIN)


def test_progress_hears_of_every_target() -> None:
    heard: list[tuple[int, int]] = []
    fit_linear(shop(items=300, users=30, share=0.05), LOCAL, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(256, 300), (300, 300)]
