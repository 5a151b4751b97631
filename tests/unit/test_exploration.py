from __future__ import annotations

from collections import Counter
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from shared.ranking.exploration import Placement, explore
from shared.recommend import PageRequest, Shelf, item_rows, prepare, rank, retrieve
from tests.unit.builders import MANY, NOW, shopper_of
from tests.unit.test_recommend import ANN, ITEM_IDS, model, no_lists, shop

ARRIVALS = np.array([31, 7, 54])
DRAWS = 6000


@MANY
@given(st.text(), st.lists(st.integers(0, 200), unique=True), st.integers(0, 30), st.floats(0, 1))
def test_the_same_response_draws_the_same_and_within_bounds(
    name: str, arrivals: list[int], length: int, probability: float
) -> None:
    drawn = explore(name, np.array(arrivals, dtype=np.int64), length, probability)
    assert drawn == explore(name, np.array(arrivals, dtype=np.int64), length, probability)
    if drawn is not None:
        assert drawn.position in arrivals
        assert length // 2 <= drawn.slot < length
        assert 0 < drawn.propensity <= probability


def test_a_logged_propensity_is_the_frequency_of_just_this_placement() -> None:
    drawn = Counter(explore(f"response-{number}", ARRIVALS, 5, 0.3) for number in range(DRAWS))
    explored = DRAWS - drawn.pop(None)
    assert explored / DRAWS == pytest.approx(0.3, abs=4 * sqrt(0.3 * 0.7 / DRAWS))
    placements = [one for one in drawn if one is not None]
    assert {(one.position, one.slot) for one in placements} == {(p, s) for p in ARRIVALS.tolist() for s in (2, 3, 4)}
    for one in placements:
        assert one.propensity == pytest.approx(0.3 / 9)
        error = sqrt(one.propensity * (1 - one.propensity) / DRAWS)
        assert drawn[one] / DRAWS == pytest.approx(one.propensity, abs=5 * error)


def test_one_probability_more_explores_the_same_responses_and_more() -> None:
    def explored(probability: float) -> set[int]:
        return {number for number in range(500) if explore(str(number), ARRIVALS, 10, probability) is not None}

    assert set() == explored(0.0) < explored(0.1) < explored(0.5) < explored(1.0) == set(range(500))


@pytest.mark.parametrize(
    ("arrivals", "length", "probability"), [([], 20, 1.0), ([1], 1, 1.0), ([1], 0, 1.0), ([1], 9, 0)]
)
def test_nothing_to_give_or_no_place_for_it(arrivals: list[int], length: int, probability: float) -> None:
    assert explore("r", np.array(arrivals, dtype=np.int64), length, probability) is None


def test_certainty_over_one_place_and_one_item_is_certain() -> None:
    assert explore("r", np.array([4]), 2, 1.0) == Placement(4, 1, 1.0)


BUDGET = 0.05
PAGES = 400


def test_pages_spend_the_budget_and_no_more_than_one_place_each() -> None:
    """Whole pages under drawn recommendation ids: the share that explores lies in its binomial interval."""
    table = shop()
    shelf = Shelf.of(table, item_rows(table, ITEM_IDS))
    used = model()
    prepared = prepare(shelf, used, shopper_of(*ANN), PageRequest(NOW))
    candidates = retrieve(prepared, used, no_lists(prepared))
    ids = np.random.default_rng(20).integers(0, 2**62, PAGES)
    plain = rank(shelf, used, prepared, candidates, PageRequest(NOW))
    explored = 0
    for number in ids.tolist():
        asked = PageRequest(NOW, exploration=BUDGET, recommendation_id=f"r-{number:x}")
        page = rank(shelf, used, prepared, candidates, asked)
        changed = np.flatnonzero(page.indexes != plain.indexes)
        assert len(changed) <= 1
        assert changed.tolist() == ([] if page.explored_slot is None else [page.explored_slot])
        assert changed.tolist() == np.flatnonzero(page.propensities < 1).tolist()
        explored += len(changed)
    low, high = binom.interval(0.9999, PAGES, BUDGET)
    assert low <= explored <= high
