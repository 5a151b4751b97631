"""The nightly index: what it finds, that its stored answers are FTS5's own, that equal catalogues give equal bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from shared.catalog import Product
from shared.errors import CorruptRecord
from shared.events import ItemId
from shared.search import impacts as impacts_module
from shared.search import index as index_module
from shared.search.index import SearchIndex, build_index
from shared.search.postings import Postings
from tests.benchmarks.search_catalogue import synthetic_products


@pytest.fixture(scope="module")
def products() -> list[Product]:
    return synthetic_products(400)


def described(**fields: object) -> Product:
    return Product(**{"item_id": ItemId("i-1"), **fields})  # type: ignore[arg-type]  # a test names what it is about


def found(index: SearchIndex, word: str) -> list[int]:
    return list(index.postings(word).indexes.tolist())


def answers(products: list[Product], many: int, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, bool], Postings]:
    """What an index says of frequent words and beginnings where words of so many items are answered in the night."""
    for module in (index_module, impacts_module):
        monkeypatch.setattr(module, "MANY", many)
    index = SearchIndex(build_index(products))
    words = [word for word in index.words if index.having(word) >= 3]
    beginnings = {word[:end] for word in words for end in (1, 2, 4)}
    several = sorted(one for one in beginnings if sum(word.startswith(one) for word in index.words) > 1)
    said = {(word, False): index.postings(word) for word in words}
    return said | {(one, True): index.beginning_postings(one) for one in several}


def test_what_the_night_stored_is_what_fts5_answers(products: list[Product], monkeypatch: pytest.MonkeyPatch) -> None:
    stored = answers(products, 3, monkeypatch)
    asked = answers(products, 10**9, monkeypatch)
    assert stored.keys() == asked.keys()
    assert len(stored) > 200
    for (word, begins), held in stored.items():
        fresh = asked[word, begins]
        assert held.indexes.tolist() == fresh.indexes.tolist(), word
        if not begins:  # of a beginning the night stores the best word's score
            np.testing.assert_allclose(held.scores, fresh.scores, rtol=1e-6)


def test_equal_catalogues_give_equal_bytes_and_others_do_not(products: list[Product]) -> None:
    assert build_index(products) == build_index(list(products))
    assert build_index(products) != build_index(products[1:])


def test_every_field_is_searched_and_the_title_counts_more_than_the_description() -> None:
    index = SearchIndex(
        build_index([
            described(item_id="sku-77", title="Enamel teapot", brand="Ivton", categories=("Home", "Kitchen"),
                      description="Holds a litre.", attributes={"colour": "teal", "fits": [12, {"on": "gas"}, True]}),
            described(item_id="sku-78", title="Tray", description="Goes with the teapot."),
        ])
    )  # fmt: skip
    for word in ("77", "enamel", "ivton", "kitchen", "litre", "teal", "12", "gas"):
        assert found(index, word) == [0], word
    first, second = index.postings("teapot").scores.tolist()
    assert first > second
    assert found(index, "true") == []


@pytest.mark.parametrize(
    ("title", "word"),
    [
        ("Crème brûlée dish", "brulee"),
        ("ŻÓŁTY kubek", "zolty"),
        ("Straße", "strasse"),
        ("Ёлка", "елка"),
        ("ガラス", "ラ"),
        ("Ελλάδα", "ελλαδα"),
        ("東京ラーメン", "京"),
        ("حِذَاء رياضي", "حذاء"),
        ("हिन्दी", "हिन्दी"),
        ("\ufb01lter \uff21\uff22\uff23", "abc"),
    ],
)
def test_case_accents_and_writing_without_spaces_do_not_matter(title: str, word: str) -> None:
    assert found(SearchIndex(build_index([described(title=title)])), word) == [0]


def test_beginnings_are_looked_for_in_names_only() -> None:
    index = SearchIndex(build_index([described(title="Teapot"), described(title="Tray", description="for teapots")]))
    assert index.beginning_postings("teap").indexes.tolist() == [0]
    assert index.begins("tra")
    assert not index.begins("trax")
    assert index.beginning_postings("trax").indexes.tolist() == []


def test_words_are_ascending_and_counted(products: list[Product]) -> None:
    index = SearchIndex(build_index(products))
    assert all(one < other for one, other in pairwise(index.words))
    assert index.having("sku") == len(products)
    assert index.having("skuu") == 0
    assert SearchIndex(build_index([])).words == []


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0", b"not a database at all" * 500])
def test_what_is_no_index_is_refused(damage: bytes) -> None:
    with pytest.raises(CorruptRecord):
        SearchIndex(damage)


def test_an_index_of_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_index([described(title="Teapot")])
    monkeypatch.setattr(index_module, "FORMAT", 2)
    with pytest.raises(CorruptRecord, match="format 1"):
        SearchIndex(data)


def test_many_threads_read_one_index(products: list[Product]) -> None:
    index = SearchIndex(build_index(products))
    words = index.words[:: max(1, len(index.words) // 60)]
    alone = [found(index, word) for word in words]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda word: found(index, word), words * 8))
    assert together == alone * 8
