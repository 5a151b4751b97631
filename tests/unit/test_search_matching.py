"""From words to hits: all words, typos, fewer words, and that whatever stands in a query is data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.catalog import Product
from shared.events import ItemId
from shared.search.index import SearchIndex, build_index
from shared.search.live import LiveIndex
from shared.search.matching import MOST_WORDS, Hits, Matched, Matching
from shared.search.tokens import Tokenizer
from tests.benchmarks.search_catalogue import misspelt, synthetic_products
from tests.unit.builders import MODEST

TITLES = [
    "Enamel teapot, cream", "Enamel milk jug, cream", "Stoneware teapot, teal", "Table lamp, brass",
    "Floor lamp, brass", "Wool table runner", "Crème brûlée dish", "Lamb roasting tin, teal",
]  # fmt: skip
TOKENIZER = Tokenizer()


def live_of(products: list[Product]) -> LiveIndex:
    return LiveIndex(SearchIndex(build_index(products)), TOKENIZER)


@pytest.fixture(scope="module")
def live() -> LiveIndex:
    return live_of([Product(item_id=ItemId(f"sku-{place}"), title=title) for place, title in enumerate(TITLES)])


def hits_of(live: LiveIndex, text: str, allowed: list[bool] | None = None, exact: int | None = None) -> Hits:
    count = len(live.index.digests)
    mask = np.ones(count, np.bool_) if allowed is None else np.array(allowed)
    return Matching(live, np.arange(count, dtype=np.int32), mask).hits(live.words(text, MOST_WORDS), exact)


def found(live: LiveIndex, text: str) -> set[int]:
    return set(np.flatnonzero(hits_of(live, text).scores).tolist())


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("teapot", {0, 2}),
        ("TEAPOT enamel", {0}),
        ("brass la", {3, 4}),
        ("creme brulee", {6}),
        ("cre", {0, 1, 6}),
        ("teapto teal", {2}),
        ("teal taepot", {2}),
        ("sku-3", {3}),
        ("3", {3}),
    ],
)
def test_all_words_are_found_with_accents_typos_and_an_unfinished_end(
    live: LiveIndex, text: str, items: set[int]
) -> None:
    hits = hits_of(live, text)
    assert set(np.flatnonzero(hits.scores).tolist()) == items
    assert hits.matched is Matched.ALL


def test_a_correction_is_told(live: LiveIndex) -> None:
    hits = hits_of(live, "enamel taepot")
    assert hits.corrected == {"taepot": "teapot"}
    assert hits.did_you_mean == "enamel teapot"
    assert hits_of(live, "enamel teapot").corrected == {}
    assert hits_of(live, "enamel teapot").did_you_mean is None


def test_a_correction_is_told_of_any_hit_and_not_only_of_the_best(live: LiveIndex) -> None:
    hits = hits_of(live, "brulee teapto")
    assert hits.matched is Matched.SOME
    assert hits.corrected == {"teapto": "teapot"}
    assert hits.did_you_mean == "brulee teapot"


def test_a_word_that_exists_is_taken_for_a_typo_only_where_it_finds_nothing_else(live: LiveIndex) -> None:
    assert found(live, "lamb") == {7}, "it is a word"
    hits = hits_of(live, "brass table lamps")
    assert (hits.matched, hits.corrected) == (Matched.ALL, {"lamps": "lamp"})
    crossed = live_of([Product(item_id=ItemId("a"), title="wooden floor"), Product(item_id=ItemId("b"), title="flour")])
    hits = hits_of(crossed, "flour wooden")
    assert (hits.matched, hits.corrected, int(hits.scores.argmax())) == (Matched.ALL, {"flour": "floor"}, 0)


def test_without_an_item_that_has_all_words_those_with_the_most_telling_ones_come(live: LiveIndex) -> None:
    hits = hits_of(live, "enamel teapot zzzzzz brass")
    assert hits.matched is Matched.SOME
    assert set(np.flatnonzero(hits.scores).tolist()) == {0}
    assert hits_of(live, "zzzzzz").matched is Matched.NONE
    assert not hits_of(live, "zzzzzz").scores.any()


@pytest.mark.parametrize("text", ["", " ", "?!", "\0", "\ud800", "🎧🎧", '"', "* ^ - ( )"])
def test_a_query_without_a_word_finds_nothing(live: LiveIndex, text: str) -> None:
    assert hits_of(live, text).matched is Matched.NONE


def test_what_may_not_be_shown_is_no_hit_and_makes_room_for_fewer_words(live: LiveIndex) -> None:
    allowed = [place != 0 for place in range(len(TITLES))]
    hits = hits_of(live, "enamel teapot", allowed)
    assert hits.matched is Matched.SOME
    assert set(np.flatnonzero(hits.scores).tolist()) == {1, 2}
    assert not hits_of(live, "teapot", [False] * len(TITLES)).scores.any()


def test_the_item_whose_id_is_the_query_comes_first(live: LiveIndex) -> None:
    hits = hits_of(live, "teapot", exact=5)
    assert hits.scores.argmax() == 5
    assert hits.matched is Matched.ALL
    assert hits_of(live, "--", exact=5).matched is Matched.ALL
    blocked = hits_of(live, "teapot", [place != 5 for place in range(len(TITLES))], exact=5)
    assert blocked.scores[5] == 0


def test_of_a_long_query_the_first_words_count(live: LiveIndex) -> None:
    words = [f"w{number}" for number in range(2000)]
    assert hits_of(live, " ".join(["teapot", *words])).matched is Matched.SOME
    assert live.words(" ".join(words), MOST_WORDS) == words[:MOST_WORDS]


SYNTAX = [
    "AND",
    "OR",
    "NOT",
    "NEAR(",
    ")",
    "*",
    "^",
    ":",
    "title:",
    "-",
    "+",
    '"',
    '""',
    "'",
    "{title}",
    ",",
    "\0",
    ";--",
]
PIECES = st.one_of(st.sampled_from(["teapot", "enamel", "lamp", "crème"]), st.sampled_from(SYNTAX), st.text(max_size=8))


@MODEST
@given(st.lists(PIECES, max_size=12).map(" ".join))
@example('title:teapot OR "enamel')
@example("NEAR(enamel teapot, 1)")
@example("teapot*^ {title brand} : lamp")
@example('"' * 10_000)
@example("\udfff" * 500 + "teapot")
def test_no_query_raises_and_none_is_syntax(live: LiveIndex, text: str) -> None:
    words = live.words(text, MOST_WORDS)
    plain = hits_of(live, text)
    spelt = hits_of(live, " ".join(words))
    assert plain.scores.tolist() == spelt.scores.tolist(), "only its words count"
    if plain.matched is Matched.ALL and not plain.corrected and words:
        for word in words[:-1]:
            having = live.scores(word, np.arange(len(TITLES), dtype=np.int32), len(TITLES), begins=False)
            assert (having[plain.scores > 0] > 0).all(), "every word is wanted, AND and NOT among them"


def test_words_survive_being_cut_again() -> None:
    for text in ("Crème ŻÓŁTY Straße", "東京 ガラス", "हिन्दी", "İstanbul", "ǅ ﬃ ½"):
        words = TOKENIZER.words(text, 50)
        assert TOKENIZER.words(" ".join(words), 50) == words
        assert words


def test_two_hundred_misspelt_titles_find_their_item_among_the_first_ten() -> None:
    products = synthetic_products(3000)
    live = live_of(products)
    queries = misspelt(products, 200)
    missed = []
    for one in queries:
        scores = hits_of(live, one.query).scores
        if one.index not in np.argsort(-scores, kind="stable")[:10]:
            missed.append(one)
    assert len(missed) <= 10, missed
