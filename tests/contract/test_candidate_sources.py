"""What every candidate source promises: one contract over all of them.

A new source joins by an entry in `source_world.ANSWERS`; where it reads something from the night, `source_nights` is
that night.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.build_neighbours import cut_lists
from batch.retrieval_span import RetrievalSpan
from shared.candidates.als import AlsSource, ItemFactors
from shared.candidates.opinion import Opinion
from shared.candidates.params import DEFAULT, LIMITS
from shared.candidates.query import REQUEST_KINDS, History, ListKind, Neighbours, Query
from shared.candidates.ranked import Ranked
from shared.candidates.span import lists_folder, load_lists
from shared.events import ItemId, Preferences
from shared.features.definitions import Retrieval
from shared.features.items import ItemTable
from shared.recommend import PageRequest, Shelf, item_rows, prepare, retrieve
from tests.contract.source_nights import LIST_SIZE, LeftByNight, fitted
from tests.contract.source_world import (
    ANN,
    ANSWERS,
    COUNT,
    FACTORS,
    STRANGERS,
    TOUCHED,
    catalogue,
    known_answer,
    model_of,
    naive_factor,
    world,
)
from tests.unit.builders import MANY, MODEST, NOW, event, sent, shopper_of, updated

ALL = np.arange(COUNT, dtype=np.int32)
RENUMBERED = np.random.default_rng(8).permutation(COUNT)
LISTED = [Retrieval(kind.value) for kind in REQUEST_KINDS]
WITHOUT_CHANCE = [kind for kind in ListKind if kind is not ListKind.SIMILAR]
"""Lists in which no factors have a part: those begin with random numbers in the order of the items."""


@pytest.fixture(params=list(Retrieval), ids=str)
def name(request: pytest.FixtureRequest) -> Retrieval:
    found: Retrieval = request.param
    return found


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> LeftByNight:
    return LeftByNight.at(tmp_path_factory.mktemp("night"))


@pytest.fixture(scope="module")
def another_night() -> RetrievalSpan:
    return fitted(range(COUNT))


@pytest.fixture(scope="module")
def renumbered_night() -> RetrievalSpan:
    return fitted(RENUMBERED.tolist())


def assert_well_formed(ranked: Ranked, query: Query, limit: int) -> None:
    assert len(ranked.indexes) == len(ranked.scores) == len(ranked.via) <= limit
    for column, kind in ((ranked.indexes, np.int32), (ranked.scores, np.float32), (ranked.via, np.int32)):
        assert column.dtype == np.dtype(kind)
    assert len(set(ranked.indexes.tolist())) == len(ranked.indexes)
    assert (ranked.scores > 0).all()
    assert (np.diff(ranked.scores) <= 0).all()
    assert query.eligible[ranked.indexes].all()
    assert set(ranked.via.tolist()) <= {-1, *query.seeds.tolist(), *query.history.indexes.tolist()}


def assert_equal(one: Opinion, other: Opinion, relative: float = 0.0) -> None:
    first, second = one.top(COUNT), other.top(COUNT)
    assert first.indexes.tolist() == second.indexes.tolist()
    assert first.via.tolist() == second.via.tolist()
    np.testing.assert_allclose(first.scores, second.scores, rtol=relative)
    np.testing.assert_allclose(one.at(ALL), other.at(ALL), rtol=relative, atol=relative)


def test_every_source_is_here_says_whose_work_it_is_and_has_a_limit(name: Retrieval) -> None:
    source = world(name, shopper_of()).source
    assert source.name is name
    assert LIMITS[name] > 0
    assert name in ANSWERS
    said = f"{inspect.getdoc(type(source))} {inspect.getdoc(inspect.getmodule(source))}".casefold()
    assert re.search(r"nightly per-item|nightly per-user|request time", said)


def test_known_data_have_a_known_answer(name: Retrieval) -> None:
    one = world(name, shopper_of(*ANN))
    ranked = one.source.consider(one.query).top(COUNT)
    assert one.items(ranked) == known_answer(name, one.query)
    assert_well_formed(ranked, one.query, COUNT)


def test_a_stranger_is_answered_or_gets_nothing(name: Retrieval) -> None:
    one = world(name, shopper_of())
    assert one.items(one.source.consider(one.query).top(COUNT)) == STRANGERS.get(name, [])
    unread = replace(one.query, neighbours={})
    assert one.items(one.source.consider(unread).top(COUNT)) == STRANGERS.get(name, [])


def test_a_strangers_candidates_are_all_that_may_be_shown_also_without_lists() -> None:
    one = world(Retrieval.POPULAR, shopper_of(), excluded_rows=frozenset({4}))
    found = retrieve(one.prepared, model_of(FACTORS), {})
    assert found.indexes.tolist() == [0, 1, 2, 3, *range(5, COUNT)]


def test_without_lists_a_source_that_reads_them_says_nothing(name: Retrieval) -> None:
    one = world(name, shopper_of(*ANN))
    ranked = one.source.consider(replace(one.query, neighbours={})).top(COUNT)
    assert one.items(ranked) == ([] if name in LISTED else known_answer(name, one.query))


def test_the_limit_keeps_the_best(name: Retrieval) -> None:
    one = world(name, shopper_of(*ANN))
    whole = one.source.consider(one.query).top(COUNT)
    for limit in range(1, COUNT + 1):
        ranked = one.source.consider(one.query).top(limit)
        assert ranked.indexes.tolist() == whole.indexes[:limit].tolist()
        assert ranked.scores.tolist() == pytest.approx(whole.scores[:limit].tolist())


def test_what_it_puts_forward_has_the_score_that_it_gives_when_asked(name: Retrieval) -> None:
    for shopper in (shopper_of(), shopper_of(*ANN)):
        one = world(name, shopper)
        opinion = one.source.consider(one.query)
        ranked, scores = opinion.top(COUNT), opinion.at(ALL)
        assert scores.dtype == np.float32
        assert (scores >= 0).all()
        assert scores[ranked.indexes].tolist() == pytest.approx(ranked.scores.tolist(), rel=1e-6)
        unsaid = np.setdiff1d(np.flatnonzero(scores), ranked.indexes)
        assert set(one.items(Ranked.seedless(unsaid, scores[unsaid]))) <= TOUCHED, "only what she has had already"
        for some in (ALL[::2], ALL[3:4], ALL[:0]):
            assert opinion.at(some).tolist() == scores[some].tolist()


@MODEST
@given(st.sampled_from(list(Retrieval)), st.lists(st.booleans(), min_size=COUNT, max_size=COUNT), st.integers(1, COUNT))
def test_only_what_may_be_shown_is_returned_in_the_order_it_had(
    name: Retrieval, allowed: list[bool], limit: int
) -> None:
    one = world(name, shopper_of(*ANN))
    query = replace(one.query, eligible=np.array(allowed))
    ranked = one.source.consider(query).top(limit)
    assert_well_formed(ranked, query, limit)
    unbounded = one.source.consider(one.query).top(COUNT)
    kept = [item for item in unbounded.indexes.tolist() if allowed[item]]
    assert ranked.indexes.tolist() == kept[:limit]


def test_what_was_bought_excluded_or_hidden_is_put_forward_by_none(name: Retrieval) -> None:
    asked: dict[str, Any] = {
        "bought_window_days": 30,
        "excluded_rows": frozenset({2, 6}),
        "preferences": Preferences(hidden_items=["i3", "i9"]),
    }
    plain, strict = world(name, shopper_of(*ANN)), world(name, shopper_of(*ANN), **asked)
    before = set(plain.items(plain.source.consider(plain.query).top(COUNT)))
    after = set(strict.items(strict.source.consider(strict.query).top(COUNT)))
    assert after == before - {1, 2, 6, 3, 9}
    assert before & {1, 2, 6, 3, 9}


def test_nothing_may_be_shown_so_nothing_is(name: Retrieval) -> None:
    one = world(name, shopper_of(*ANN))
    query = replace(one.query, eligible=np.zeros(COUNT, dtype=np.bool_))
    assert not len(one.source.consider(query).top(COUNT).indexes)


@MODEST
@given(st.sampled_from(list(Retrieval)), st.permutations(range(COUNT)), st.sampled_from(["i", "other-"]))
def test_another_numbering_changes_nothing_but_the_numbers(name: Retrieval, place: list[int], prefix: str) -> None:
    ann = shopper_of(*(replace(one, event=renamed(one.event, prefix)) for one in ANN))
    plain, other = world(name, shopper_of(*ANN)), world(name, ann, place=place, prefix=prefix)
    wanted, found = plain.source.consider(plain.query).top(COUNT), other.source.consider(other.query).top(COUNT)
    assert other.items(found) == plain.items(wanted)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-4, atol=1e-6)
    number = {index: item for item, index in enumerate(place)} | {-1: -1}
    assert [number[index] for index in found.via.tolist()] == wanted.via.tolist()


def renamed(one: Any, prefix: str) -> Any:
    return event(one.event_type, item=prefix + str(one.item_id)[1:], at=one.occurred_at_ms)


def test_equal_queries_have_equal_answers_and_are_left_as_they_were(name: Retrieval) -> None:
    one, again = world(name, shopper_of(*ANN)), world(name, shopper_of(*ANN))
    eligible = one.query.eligible.copy()
    first = one.source.consider(one.query).top(4)
    for other in (one.source.consider(one.query).top(4), again.source.consider(again.query).top(4)):
        for column in ("indexes", "scores", "via"):
            assert getattr(other, column).tobytes() == getattr(first, column).tobytes()
    np.testing.assert_array_equal(one.query.eligible, eligible)


def test_an_action_from_a_broken_clock_breaks_nothing(name: Retrieval) -> None:
    one = world(name, shopper_of(sent("view", item="i0", at=-62_135_596_800_000, enqueued_at=NOW)))
    assert_well_formed(one.source.consider(one.query).top(COUNT), one.query, COUNT)


def test_an_empty_catalogue_has_an_empty_answer(name: Retrieval) -> None:
    table = ItemTable()
    model = model_of(FACTORS[:0])
    prepared = prepare(Shelf.of(table, item_rows(table, [])), model, shopper_of(*ANN), PageRequest(NOW))
    none = Neighbours(np.empty((0, 3), np.int32), np.empty((0, 3), np.float32))
    for neighbours in ({}, dict.fromkeys(ListKind, none)):
        opinion = model.sources[name].consider(replace(prepared.query, neighbours=neighbours))
        assert not len(opinion.top(COUNT).indexes)
        assert not len(opinion.at(ALL[:0]))


def test_items_younger_than_the_night_are_known_to_those_who_need_no_night(name: Retrieval) -> None:
    table = catalogue("i")
    released = item_rows(table, [ItemId(f"i{number}") for number in range(COUNT)])
    young = updated(
        "young", title="Young", categories=["Shop", "A"], price_cents=100, arrived_at="2023-11-14T00:00:00Z"
    )
    table.fold(young, NOW)
    for _ in range(5):
        table.fold(event("view", item="young", user="others"), NOW)
    shelf, model = Shelf.of(table, released, with_young=True), model_of(FACTORS)
    for history in ((), ANN, (*ANN, sent("view", item="young", at=NOW))):
        query = prepare(shelf, model, shopper_of(*history), PageRequest(NOW)).query
        opinion = model.sources[name].consider(query)
        ranked = opinion.top(COUNT + 1)
        assert_well_formed(ranked, query, COUNT + 1)
        young_score = opinion.at(np.array([COUNT], np.int32))[0]
        assert (young_score > 0) == (COUNT in ranked.indexes)
        if name in LISTED or name is Retrieval.ALS:
            assert young_score == 0
        if name in (Retrieval.POPULAR, Retrieval.ARRIVALS):
            assert young_score > 0


@pytest.mark.parametrize("name", [Retrieval.ALS, *LISTED], ids=str)
def test_what_was_touched_is_scored_but_left_to_the_repeat_source(name: Retrieval) -> None:
    one = world(name, shopper_of(*ANN))
    opinion = one.source.consider(one.query)
    assert not TOUCHED & set(opinion.top(COUNT).indexes.tolist())
    assert opinion.at(np.array(sorted(TOUCHED), np.int32)).any()


def test_the_pages_own_item_is_the_first_seed() -> None:
    one = world(Retrieval.COOCCURRENCE, shopper_of(*ANN), context_row=4)
    ranked = one.source.consider(one.query).top(COUNT)
    assert one.query.seeds[0] == one.query.context == 4
    assert dict(zip(ranked.indexes.tolist(), ranked.via.tolist(), strict=True))[9] == 4
    stranger = world(Retrieval.COOCCURRENCE, shopper_of(), context_row=4)
    assert stranger.items(stranger.source.consider(stranger.query).top(COUNT)) == [5, 6, 9]


def test_what_the_night_left_answers_alike_in_the_harness_and_in_the_api(name: Retrieval, night: LeftByNight) -> None:
    """Saved, loaded, cut, written as Parquet, published as bytes: one answer; for ALS by the night's record, too."""
    query = world(name, shopper_of(*ANN)).query
    harness, api = night.in_the_harness(name, query), night.in_the_api(name, query)
    assert len(harness.top(COUNT).indexes)
    assert_equal(harness, api, relative=1e-3 if name is Retrieval.ALS else 0.0)  # a record's factor is a float16


@pytest.mark.parametrize("kind", list(ListKind))
def test_equal_seeds_make_equal_nights(kind: ListKind, night: LeftByNight, another_night: RetrievalSpan) -> None:
    left = load_lists(lists_folder(night.folder, "all", kind), COUNT)
    indexes, columns = cut_lists(another_night, kind, 0, COUNT, LIST_SIZE)
    width = left.indexes.shape[1]
    np.testing.assert_array_equal(indexes[:, :width], left.indexes)
    np.testing.assert_array_equal(columns[0][:, :width], left.scores)


@pytest.mark.parametrize("kind", WITHOUT_CHANCE)
def test_other_numbers_make_the_same_lists(
    kind: ListKind, another_night: RetrievalSpan, renumbered_night: RetrievalSpan
) -> None:
    plain, other = (cut_lists(one, kind, 0, COUNT, COUNT) for one in (another_night, renumbered_night))
    dense = [np.zeros((COUNT, COUNT)) for _ in range(2)]
    for into, (indexes, columns) in zip(dense, (plain, other), strict=True):
        for row, column in product(range(COUNT), range(indexes.shape[1])):
            if indexes[row, column] >= 0:
                into[row, indexes[row, column]] = columns[0][row, column]
    assert dense[0].any()
    np.testing.assert_allclose(dense[1][np.ix_(RENUMBERED, RENUMBERED)], dense[0], rtol=1e-4, atol=1e-6)


@MODEST
@given(
    st.lists(
        st.tuples(st.integers(0, COUNT - 1), st.sampled_from([1.0, 3.0, 5.0])), max_size=8, unique_by=lambda it: it[0]
    )
)
def test_folding_in_solves_the_normal_equations(actions: list[tuple[int, float]]) -> None:
    indexes = np.array([index for index, _ in actions], np.int32)
    weights = np.array([weight for _, weight in actions], dtype=np.float64)
    history = History(indexes, weights, np.zeros(len(actions), np.int64), np.ones(len(actions), np.int64))
    found = ItemFactors.of(FACTORS, 0.05, 2.0).fold_in(history, DEFAULT.als_decay, DEFAULT.als_history)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_factor(history), rtol=1e-4, atol=1e-5)


def test_a_factor_from_the_night_ranks_as_one_folded_in_now() -> None:
    one = world(Retrieval.ALS, shopper_of(*ANN))
    assert isinstance(one.source, AlsSource)
    ranked = one.source.consider_for(one.source.factor(one.query), one.query).top(5)
    assert ranked.indexes.tolist() == known_answer(Retrieval.ALS, one.query)[:5]


SCORES = st.floats(-1, 3).map(lambda score: round(score, 1)) | st.just(1e-60)


@MANY
@given(st.lists(SCORES, max_size=30), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_top_is_the_top_of_a_sort(scores: list[float], limit: int, random: Any) -> None:
    indexes = random.sample(range(100), len(scores))
    ranked = Ranked.top(np.array(indexes, np.int32), np.array(scores), limit)
    best = sorted(zip(scores, indexes, strict=True), key=lambda pair: (-pair[0], pair[1]))[:limit]
    wanted = [(index, np.float32(score)) for score, index in best if score > 1e-40]
    assert list(zip(ranked.indexes.tolist(), ranked.scores, strict=True)) == wanted
    assert ranked.via.tolist() == [-1] * len(wanted)
