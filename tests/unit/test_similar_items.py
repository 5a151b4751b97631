"""Similar items: the blend by hand, slices that agree, nothing similar to what nobody touched."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from batch.models.similar_items import similar_items

FACTORS = np.array([[1, 0], [2, 0], [1, 1], [0, 0], [-1, 0]], dtype=np.float32)
MET = sparse.csr_array(
    np.array([[0, 1, 4, 0, 2], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [3, 0, 0, 0, 0]], dtype=np.float32)
)


def test_by_hand() -> None:
    found = similar_items(FACTORS, MET, 0, 5, k=3, cosine_share=0.5)
    assert found.indexes[0].tolist() == [2, 1, 4]
    assert found.scores[0] == pytest.approx([0.5 * 2**-0.5 + 0.5, 0.5 + 0.125, 0.25])
    assert found.indexes[2, :2].tolist() in ([0, 1], [1, 0])
    assert found.indexes[4].tolist() == [0, -1, -1], "opposite directions are not similar, meetings are"


def test_an_item_nobody_touched_has_no_neighbours() -> None:
    assert similar_items(FACTORS, MET, 3, 4, k=3).indexes.tolist() == [[-1, -1, -1]]


def test_shares_choose_the_part() -> None:
    assert similar_items(FACTORS, MET, 0, 1, k=1, cosine_share=1.0).indexes.tolist() == [[1]]
    assert similar_items(FACTORS, MET, 0, 1, k=1, cosine_share=0.0).indexes.tolist() == [[2]]


def test_slices_agree_with_the_whole() -> None:
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(300, 16)).astype(np.float32)
    met = sparse.csr_array(sparse.random(300, 300, density=0.05, rng=generator, dtype=np.float32))
    whole = similar_items(factors, met, 0, 300, k=10)
    cuts = [0, 1, 50, 64, 200, 300]
    parts = [similar_items(factors, met, low, high, k=10) for low, high in pairwise(cuts)]
    assert np.array_equal(np.concatenate([part.indexes for part in parts]), whole.indexes)
    assert np.array_equal(np.concatenate([part.scores for part in parts]), whole.scores)
    assert not np.any(whole.indexes == np.arange(300)[:, None]), "an item is not similar to itself"
    assert np.all(np.diff(whole.scores, axis=1) <= 0)
    assert whole.scores.max() <= 1 + 1e-6
    assert similar_items(factors, met, 7, 7, k=10).indexes.shape == (0, 10)


def test_numbering_items_anew_changes_nothing() -> None:
    generator = np.random.default_rng(1)
    factors = generator.normal(size=(40, 8)).astype(np.float32)
    met = sparse.csr_array(sparse.random(40, 40, density=0.2, rng=generator, dtype=np.float32))
    old_of = generator.permutation(40)
    # At equal shares the greatest cosine and the greatest meeting tie at a half.
    plain = similar_items(factors, met, 0, 40, k=5, cosine_share=0.6)
    moved = similar_items(factors[old_of], sparse.csr_array(met[old_of][:, old_of]), 0, 40, k=5, cosine_share=0.6)
    assert np.array_equal(old_of[moved.indexes], plain.indexes[old_of])
