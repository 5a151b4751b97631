"""Live changes over the nightly index: what is found is what an index built from the products of now would find."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from shared.catalog import Product
from shared.search.index import SearchIndex, build_index
from shared.search.live import LiveIndex, Renewed
from shared.search.tokens import Tokenizer
from tests.benchmarks.search_catalogue import synthetic_products

TOKENIZER = Tokenizer()
NIGHTLY = 120


@pytest.fixture(scope="module")
def products() -> list[Product]:
    return synthetic_products(NIGHTLY + 20)


def opened(products: Sequence[Product]) -> LiveIndex:
    return LiveIndex(SearchIndex(build_index(products)), TOKENIZER)


def renew(live: LiveIndex, changed: dict[int, Product | None], version: int) -> None:
    """Table rows equal the release's indexes here; rows from NIGHTLY on are younger."""
    told = [Renewed(row, row if row < NIGHTLY else -1, product) for row, product in changed.items()]
    live.renew(lambda _since: (version, told))


def found(live: LiveIndex, word: str, count: int, *, begins: bool = False) -> list[int]:
    rows = np.arange(count, dtype=np.int32)
    return np.flatnonzero(live.scores(word, rows, count, begins=begins)).tolist()


def test_random_changes_are_found_as_a_fresh_index_finds_them(products: list[Product]) -> None:
    draw = random.Random(4)
    live = opened(products[:NIGHTLY])
    now: dict[int, Product | None] = dict(enumerate(products[:NIGHTLY]))
    for version in range(1, 25):
        changed: dict[int, Product | None] = {}
        for row in draw.sample(range(len(products)), 12):
            other = draw.choice(products)
            kinds = [products[row], None, Product(item_id=products[row].item_id, title=other.title, brand=other.brand)]
            changed[row] = draw.choice(kinds)
        renew(live, changed, version)
        now |= changed
    assert len(live.overlay)
    held = [(row, product) for row, product in sorted(now.items()) if product is not None]
    fresh = SearchIndex(build_index(product for _, product in held))
    for word in {*fresh.words, *live.index.words}:
        wanted = [held[index][0] for index in fresh.postings(word).indexes.tolist()]
        assert found(live, word, len(products)) == wanted, word
        assert (live.having(word) > 0) >= (len(wanted) > 0)
    for beginning in {word[:2] for word in fresh.words}:
        wanted = [held[index][0] for index in fresh.beginning_postings(beginning).indexes.tolist()]
        assert set(wanted) <= set(found(live, beginning, len(products), begins=True)), beginning


def test_a_document_scores_the_same_in_the_overlay_as_in_the_index(products: list[Product]) -> None:
    live = opened(products[:NIGHTLY])
    words = [word for word in live.index.words if live.having(word) > 1][:60]
    rows = np.arange(NIGHTLY, dtype=np.int32)
    before = {word: live.scores(word, rows, NIGHTLY, begins=False) for word in words}
    live.index.digests = np.where(rows % 2, live.index.digests, 0)  # as if every other product had changed
    renew(live, dict(enumerate(products[:NIGHTLY])), 1)
    assert len(live.overlay) == NIGHTLY // 2
    for word in words:
        np.testing.assert_allclose(live.scores(word, rows, NIGHTLY, begins=False), before[word], rtol=1e-5)


def test_what_turns_back_leaves_the_overlay(products: list[Product]) -> None:
    live = opened(products[:NIGHTLY])
    first = products[0]
    renew(live, {0: Product(item_id=first.item_id, title="Xylophone"), NIGHTLY: products[NIGHTLY]}, 1)
    assert found(live, "xylophone", NIGHTLY + 1) == [0]
    assert live.replaced.tolist() == [0]
    renew(live, {0: first, NIGHTLY: None}, 2)
    assert found(live, "xylophone", NIGHTLY + 1) == []
    assert len(live.overlay) == 0
    assert live.replaced.tolist() == []
    assert live.products_version == 2
    assert not live.begins("xylo")


def test_rows_that_the_shelf_does_not_have_yet_are_not_found(products: list[Product]) -> None:
    live = opened(products[:NIGHTLY])
    renew(live, {NIGHTLY + 5: Product(item_id=products[0].item_id, title="Xylophone")}, 1)
    assert found(live, "xylophone", NIGHTLY) == []
    rows = np.full(NIGHTLY + 6, -1, np.int32)
    assert not live.scores("xylophone", rows, NIGHTLY, begins=False).any()


def test_a_typo_leads_to_a_word_that_came_since_the_night(products: list[Product]) -> None:
    live = opened(products[:NIGHTLY])
    assert live.neighbours("xylophne", 5) == []
    renew(live, {0: Product(item_id=products[0].item_id, title="Xylophone")}, 1)
    assert live.neighbours("xylophne", 5) == ["xylophone"]
    assert live.begins("xylo")


def test_only_one_renews_at_a_time(products: list[Product]) -> None:
    live = opened(products[:NIGHTLY])

    def while_another_renews(_since: int) -> tuple[int, list[Renewed]]:
        live.renew(lambda _again: (9, [Renewed(1, 1, None)]))
        return 3, []

    live.renew(while_another_renews)
    assert live.products_version == 3
    assert live.replaced.tolist() == []
