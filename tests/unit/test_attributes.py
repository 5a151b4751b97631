"""Items alike by attributes: cosines by hand, new items carried, columns that every process agrees on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from batch.models import neighbour_lists
from batch.models.attributes import AttributeParams, attribute_matrix, fit_attributes, lend_successors, token_column
from shared.catalog import Product

COSINE = AttributeParams(popularity=0.0)


def product(number: int, **fields: object) -> Product:
    return Product(item_id=f"item-{number}", **fields)  # type: ignore[arg-type]  # the fields are Product's


SHOES = (
    product(0, title="Red shoe", categories=("clothes", "shoes"), brand="Acme", price_cents=4000),
    product(1, title="Blue SHOE", categories=("clothes", "shoes"), brand="acme", price_cents=4100),
    product(2, title="Red coat", categories=("clothes", "coats"), brand="Other", price_cents=20_000),
    product(3, title="Lamp", categories=("home", "lamps"), brand="Light", price_cents=4000),
    product(4),
    product(5, title="Oak table", categories=("home", "tables"), price_cents=90_000),
)
MET = np.array([4, 0, 9, 1, 3, 2], np.float32)


def test_what_is_rare_and_common_to_both_makes_two_items_alike() -> None:
    scores = fit_attributes(attribute_matrix(SHOES), MET, COSINE).toarray()
    assert scores == pytest.approx(scores.T, abs=1e-6)
    assert scores[0].argmax() == 1
    assert scores[0, 1] > scores[0, 2] > 0
    assert scores[0, 3] > 0  # the price alone
    assert not scores[4].any()
    assert not scores[:, 4].any()
    assert not scores.diagonal().any()


def test_two_tokens_by_hand() -> None:
    """Six items: 'a' is of two (idf log 7/3), 'b' of one (log 7/2); a cosine is of squares of these."""
    items = [product(number, categories=path) for number, path in enumerate((("a", "b"), ("a",), (), (), (), ()))]
    scores = fit_attributes(attribute_matrix(items), MET, COSINE).toarray()
    common, rare = np.log(7 / 3) ** 2, np.log(7 / 2) ** 2
    assert scores[0, 1] == pytest.approx(common / np.hypot(common, rare), rel=1e-6)


def test_rows_have_length_one_and_kinds_of_tokens_do_not_mix() -> None:
    matrix = attribute_matrix(SHOES)
    lengths = np.sqrt(matrix.power(2).sum(axis=1))
    assert lengths == pytest.approx([1, 1, 1, 1, 0, 1], abs=1e-6)
    apart = attribute_matrix([product(0, title="acme"), product(1, brand="acme"), product(2, categories=("acme",))])
    assert not fit_attributes(apart, np.ones(3, np.float32), COSINE).nnz


def test_prices_half_an_octave_apart_share_a_bucket_and_others_none() -> None:
    items = [product(number, price_cents=cents) for number, cents in enumerate((1000, 1100, 2200, 0, 0, 0, 0))]
    scores = fit_attributes(attribute_matrix(items), np.ones(7, np.float32), COSINE).toarray()
    assert scores[0, 1] > 0
    assert scores[0, 2] == scores[1, 2] == 0


def test_popularity_tips_the_scale_and_a_new_item_counts_as_the_least_popular() -> None:
    plain = fit_attributes(attribute_matrix(SHOES), MET, COSINE).toarray()
    tipped = fit_attributes(attribute_matrix(SHOES), MET, replace(COSINE, popularity=0.5)).toarray()
    assert tipped == pytest.approx(plain * np.sqrt(np.array([4, 1, 9, 1, 3, 2])), rel=1e-5)
    assert tipped[0, 1] > 0
    nobody = fit_attributes(attribute_matrix(SHOES), np.zeros(6, np.float32)).toarray()
    assert nobody == pytest.approx(plain)


def test_numbering_items_anew_changes_nothing() -> None:
    order = np.random.default_rng(3).permutation(6)
    moved = fit_attributes(attribute_matrix([SHOES[one] for one in order]), MET[order]).toarray()
    assert moved == pytest.approx(fit_attributes(attribute_matrix(SHOES), MET).toarray()[np.ix_(order, order)])


def test_blocks_and_lengths_of_lists_leave_the_scores_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    items = [
        product(number, categories=(f"c{generator.integers(9)}",), title=f"w{generator.integers(20)} w{number % 7}")
        for number in range(120)
    ]
    popularity = generator.integers(0, 9, 120).astype(np.float32)
    matrix = attribute_matrix(items)
    whole = fit_attributes(matrix, popularity)
    monkeypatch.setattr(neighbour_lists, "_PAIRS_AT_ONCE", 50)
    heard: list[tuple[int, int]] = []
    sliced = fit_attributes(matrix, popularity, progress=lambda done, total: heard.append((done, total)))
    assert np.array_equal(whole.toarray(), sliced.toarray())
    assert len(heard) > 10
    assert heard[-1] == (120, 120)
    few = fit_attributes(matrix, popularity, replace(AttributeParams(), list_size=5)).toarray()
    assert (few > 0).sum(axis=1).tolist() == [5] * 120
    kept = np.sort(whole.toarray(), axis=1)[:, -5:]
    assert np.sort(few, axis=1)[:, -5:] == pytest.approx(kept)


def test_a_token_of_too_many_items_is_passed_over() -> None:
    items = [product(number, categories=("all", f"c{number % 2}")) for number in range(8)]
    params = replace(COSINE, most_items=5)
    scores = fit_attributes(attribute_matrix(items, params), np.ones(8, np.float32), params).toarray()
    assert scores[0].nonzero()[0].tolist() == [2, 4, 6]
    assert scores[0, 2] == pytest.approx(1)


def test_equal_scores_stand_in_an_order_that_the_seed_gives() -> None:
    items = [product(number, categories=(f"c{number % 3}",)) for number in range(90)]
    params = replace(COSINE, list_size=4)
    lists = [fit_attributes(attribute_matrix(items), np.ones(90, np.float32), params, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (one.toarray() for one in lists)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def square(rows: list[list[float]]) -> sparse.csr_array:
    return sparse.csr_array(np.array(rows, np.float32))


ALIKE = square([[0, 3, 1, 0], [3, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
AFTER = square([[0, 0, 0, 0], [0, 0, 0, 6], [0, 0, 0, 2], [4, 4, 4, 0]])


def test_what_follows_on_look_alikes_is_lent_by_likeness() -> None:
    """Item 0 is three parts like 1 and one like 2, so 3 is lent 3/4 * 6 + 1/4 * 2; 3 itself is like nothing."""
    found = lend_successors(ALIKE, AFTER, AttributeParams(onward=0.5)).toarray()
    share = 0.5 * 8 / (0.75 * 6 + 0.25 * 2)
    expected = ALIKE.toarray()
    expected[0, 3] = share * 5
    assert found == pytest.approx(expected)
    assert not found[3].any()
    nearest = lend_successors(ALIKE, AFTER, AttributeParams(onward=0.5, look_alikes=1)).toarray()
    assert nearest[0, 3] == pytest.approx(0.5 * 8 / 6 * 6)


def test_how_like_the_look_alikes_are_weighs_within_an_item_alone() -> None:
    alike, after = square([[0, 4, 0], [1, 0, 0], [0, 0, 0]]), square([[0, 0, 2], [0, 0, 2], [0, 0, 0]])
    found = lend_successors(alike, after, AttributeParams()).toarray()
    assert found[:2, 2] == pytest.approx([2.5, 2.5])


def test_an_item_that_nobody_met_is_lent_successors_and_none_is_its_own() -> None:
    alike = square([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    after = square([[0, 5, 2], [0, 0, 0], [0, 0, 0]])
    found = lend_successors(alike, after, AttributeParams()).toarray()
    assert found[1] == pytest.approx([1, 0, 2])
    assert not found.diagonal().any()


@pytest.mark.parametrize(
    ("alike", "after", "onward"),
    [
        (ALIKE, AFTER, 0.0),
        (ALIKE, AFTER, -1.0),
        (ALIKE, square([[0] * 4] * 4), 1.0),
        (square([[0] * 4] * 4), AFTER, 1.0),
    ],
    ids=["not wanted", "less than nothing wanted", "nothing follows", "nothing is alike"],
)
def test_where_nothing_is_lent_likeness_is_left_as_it_was(
    alike: sparse.csr_array, after: sparse.csr_array, onward: float
) -> None:
    assert np.array_equal(lend_successors(alike, after, AttributeParams(onward=onward)).toarray(), alike.toarray())


def test_loans_keep_lists_short_and_follow_the_numbers_of_items() -> None:
    generator = np.random.default_rng(3)
    alike, after = (
        sparse.csr_array((generator.random((60, 60)) * (generator.random((60, 60)) < 0.3)).astype(np.float32))
        for _ in range(2)
    )
    for matrix in (alike, after):
        matrix.setdiag(0)
        matrix.eliminate_zeros()
    params = AttributeParams(list_size=9, look_alikes=5)
    found = lend_successors(alike, after, params).toarray()
    assert ((found > 0).sum(axis=1) <= 9).all()
    assert found.max() > 0
    new_number = generator.permutation(60)
    old_number = np.argsort(new_number)
    moved = [sparse.csr_array(one.toarray()[np.ix_(old_number, old_number)]) for one in (alike, after)]
    again = lend_successors(moved[0], moved[1], params).toarray()[np.ix_(new_number, new_number)]
    assert again == pytest.approx(found, abs=1e-6)


def test_every_process_hashes_alike() -> None:
    ours = token_column("category shoes")
    assert ours == 71_849  # a stored matrix and a new one must mean the same column
    program = "from batch.models.attributes import token_column; print(token_column('category shoes'))"
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert int(found.stdout) == ours


def test_an_empty_shop_has_no_lists() -> None:
    assert attribute_matrix([]).shape[0] == 0
    assert fit_attributes(attribute_matrix([]), np.empty(0, np.float32)).shape == (0, 0)
    assert isinstance(fit_attributes(attribute_matrix([product(0)]), np.zeros(1, np.float32)), sparse.csr_array)
