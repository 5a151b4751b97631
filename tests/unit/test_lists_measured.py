"""What lists show together, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from batch.evaluation.lists_measured import (
    ItemFacts,
    attribute_diversity,
    category_diversity,
    exposure_gini,
    measure_lists,
    novelty,
    share_of_places,
)

LISTS = np.array([[0, 1, 2], [0, 1, -1]])


def test_gini_is_0_for_equal_shares_and_near_1_for_one_item_alone() -> None:
    assert exposure_gini(np.array([[0, 1], [2, 3]]), 4) == pytest.approx(0)
    assert exposure_gini(np.array([[0], [0], [0]]), 100) == pytest.approx(0.99)
    # Exposures 0, 1, 2, 2: all pairs differ by 14 in sum, both ways; 14 / (2 * 4 * 5).
    assert exposure_gini(LISTS, 4) == pytest.approx(7 / 20)
    assert exposure_gini(np.full((2, 2), -1), 4) == 0


def test_gini_agrees_with_the_mean_difference_of_pairs() -> None:
    lists = np.random.default_rng(0).integers(0, 9, size=(20, 4))
    exposures = np.bincount(lists.ravel(), minlength=12)
    differences = np.abs(exposures[:, None] - exposures[None, :]).sum()
    assert exposure_gini(lists, 12) == pytest.approx(differences / (2 * 12 * exposures.sum()))


def test_novelty_is_the_mean_surprise_of_a_place() -> None:
    popularity = np.array([5, 1, 0, 0])  # with one more each: 6, 2, 1 and 1 of 10
    surprise = [-math.log2(share) for share in (0.6, 0.2, 0.1, 0.6, 0.2)]
    assert novelty(LISTS, popularity) == pytest.approx(sum(surprise) / 5)


def test_padding_is_no_place() -> None:
    assert share_of_places(LISTS, np.array([True, False, False, False])) == pytest.approx(2 / 5)
    assert share_of_places(np.full((2, 2), -1), np.array([True])) == 0


def test_diversity_of_categories_counts_pairs() -> None:
    category = np.array([1, 1, 2, 2])
    assert category_diversity(LISTS, category) == pytest.approx((2 / 3 + 0) / 2)
    assert category_diversity(LISTS, np.array([-1, -1, -1, -1])) == 1  # the unknown is like nothing
    assert math.isnan(category_diversity(np.array([[0, -1]]), category))


def test_diversity_of_attributes_is_one_less_the_mean_cosine() -> None:
    terms = np.array([[3.0, 0, 0], [1, 1, 0], [0, 0, 2], [0, 0, 0]])
    unit = terms / np.maximum(np.linalg.norm(terms, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    first = 1 - (cosine[0, 1] + cosine[0, 2] + cosine[1, 2]) / 3
    assert attribute_diversity(LISTS, csr_array(terms)) == pytest.approx((first + 1 - cosine[0, 1]) / 2)
    assert attribute_diversity(np.array([[0, 3]]), csr_array(terms)) == pytest.approx(1)
    assert attribute_diversity(np.array([[1, 1]]), csr_array(terms)) == pytest.approx(0)


def test_what_items_do_not_have_is_not_measured() -> None:
    facts = ItemFacts(np.ones(4), np.full(4, -1), np.array([False, False, True, False]))
    found = measure_lists(LISTS, facts)
    assert found.category_diversity is None
    assert found.attribute_diversity is None
    assert found.coverage == 0.75
    assert found.new_item_share == pytest.approx(1 / 5)
    assert found.gini == pytest.approx(7 / 20)
