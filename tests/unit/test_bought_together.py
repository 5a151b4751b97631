"""Bought together: baskets by session and by day, the three numbers by hand, best-sellers kept in their place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from batch.models.bought_together import (
    BASKET_SPAN_MS,
    LARGEST_BASKET,
    assign_baskets,
    basket_matrix,
    bought_together,
)


def baskets_of(*baskets: list[int], items: int) -> sparse.csr_array:
    basket = np.repeat(np.arange(len(baskets)), [len(each) for each in baskets])
    item = np.array([one for each in baskets for one in each], dtype=np.int32)
    return basket_matrix(basket, item, len(baskets), items)


def assign(*purchases: tuple[int, int, int]) -> list[int]:
    user, session, at = (np.array(column) for column in zip(*purchases, strict=True))
    found, count = assign_baskets(user.astype(np.int32), session.astype(np.int32), at.astype(np.int64))
    assert count == len(set(found.tolist()))
    assert set(found.tolist()) == set(range(count))
    return [int(number) for number in found]


def test_a_session_of_one_user_is_a_basket_however_long() -> None:
    found = assign((0, 7, 0), (0, 8, 5), (0, 7, 10 * BASKET_SPAN_MS), (1, 7, 0))
    assert found[0] == found[2]
    assert len({found[0], found[1], found[3]}) == 3


def test_without_sessions_a_day_from_the_first_purchase_is_a_basket() -> None:
    day = BASKET_SPAN_MS
    found = assign((0, -1, 0), (0, -1, day), (0, -1, day + 1), (0, -1, 2 * day), (1, -1, 2 * day), (1, -1, 2 * day + 9))
    assert found == [0, 0, 1, 1, 2, 2]


def test_purchases_with_and_without_session_stay_apart() -> None:
    found = assign((0, -1, 0), (0, 3, 1), (0, -1, 2))
    assert found[0] == found[2] != found[1]


def test_no_purchases() -> None:
    empty = np.empty(0, dtype=np.int32)
    found, count = assign_baskets(empty, empty, empty.astype(np.int64))
    assert (len(found), count) == (0, 0)
    lists = bought_together(basket_matrix(found, empty, 0, 3), 0, 3, k=2)
    assert lists.indexes.tolist() == [[-1, -1]] * 3


def test_support_confidence_and_lift_by_hand() -> None:
    # 8 baskets: item 0 in 4, item 1 in 3, together in 3; item 2 in 4, never with 0.
    matrix = baskets_of([0, 1], [0, 1], [0, 1, 1], [0], [2], [2], [2], [2, 3], items=4)
    found = bought_together(matrix, 0, 4, k=2, min_count=2)
    assert found.indexes.tolist() == [[1, -1], [0, -1], [-1, -1], [-1, -1]]
    assert found.count[:2, 0].tolist() == [3, 3]
    assert found.support[:2, 0] == pytest.approx([3 / 8, 3 / 8])
    assert found.confidence[:2, 0] == pytest.approx([3 / 4, 1]), "the lists have a direction"
    assert found.lift[:2, 0] == pytest.approx([2, 2])
    assert found.support[0, 1] == found.confidence[0, 1] == found.lift[0, 1] == found.count[0, 1] == 0


def test_pairs_below_the_minimum_count_are_left_out() -> None:
    matrix = baskets_of([0, 1], [0, 1], [2], [2], items=3)
    assert bought_together(matrix, 0, 1, k=1, min_count=2).indexes.tolist() == [[1]]
    assert bought_together(matrix, 0, 1, k=1, min_count=3).indexes.tolist() == [[-1]]


def test_a_best_seller_in_every_basket_is_no_complement() -> None:
    # Item 0 is in all baskets but one; item 2 is bought with item 1 and hardly otherwise.
    baskets = [[0, 1, 2]] * 3 + [[0, 1]] + [[0]] * 15 + [[3]]
    found = bought_together(baskets_of(*baskets, items=4), 1, 2, k=2)
    assert found.indexes[0].tolist() == [2, 0]
    assert found.confidence[0, 0] < found.confidence[0, 1]


def test_slices_agree_with_the_whole_and_numbers_belong_to_their_pair() -> None:
    generator = np.random.default_rng(0)
    baskets = [generator.choice(50, size=6, replace=False, p=None).tolist() for _ in range(300)]
    matrix = baskets_of(*baskets, items=50)
    whole = bought_together(matrix, 0, 50, k=5)
    part = bought_together(matrix, 20, 33, k=5)
    for name in ("indexes", "scores", "support", "confidence", "lift", "count"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[20:33])
    sets = [set(each) for each in baskets]
    checked = 0
    for source in range(50):
        for place, target in enumerate(whole.indexes[source]):
            if target < 0:
                continue
            both = sum(source in each and target in each for each in sets)
            bought = sum(source in each for each in sets)
            sold = sum(target in each for each in sets)
            assert whole.count[source, place] == both
            assert whole.support[source, place] == pytest.approx(both / 300)
            assert whole.confidence[source, place] == pytest.approx(both / bought)
            assert whole.lift[source, place] == pytest.approx(both / bought / (sold / 300))
            checked += 1
    assert checked > 100


def test_numbering_items_anew_changes_only_ties() -> None:
    generator = np.random.default_rng(1)
    baskets = [generator.choice(20, size=4, replace=False).tolist() for _ in range(200)]
    new_number = generator.permutation(20)
    plain = bought_together(baskets_of(*baskets, items=20), 0, 20, k=4)
    moved = bought_together(baskets_of(*[[int(new_number[i]) for i in each] for each in baskets], items=20), 0, 20, k=4)
    assert moved.scores[new_number] == pytest.approx(plain.scores, abs=1e-6)
    assert plain.scores == pytest.approx(plain.confidence * np.log(np.maximum(plain.lift, 1)), abs=1e-6)


def test_a_wholesale_order_is_left_out() -> None:
    huge = list(range(LARGEST_BASKET + 1))
    assert baskets_of(huge, [0, 1], items=LARGEST_BASKET + 1).shape[0] == 1
