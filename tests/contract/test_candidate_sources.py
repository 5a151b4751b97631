"""What every candidate source promises. A new source joins by an entry in ANSWERS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.candidates.als import AlsSource, ItemFactors
from shared.candidates.params import DEFAULT, LIMITS
from shared.candidates.query import CandidateSource, History, ListKind, Neighbours, Query
from shared.candidates.ranked import Ranked
from shared.features.aggregations import DAY_MS, MINUTE_MS
from shared.features.definitions import Retrieval
from shared.features.items import ItemTable
from shared.features.shard import Shopper
from shared.recommend import Model, PageRequest, Shelf, default_sources, item_rows, prepare
from tests.unit.builders import MANY, MODEST, NOW, event, sent, shopper_of, table_of, updated

COUNT = 12
ARRIVED_DAYS_AGO = {2: 5, 9: 1, 10: 10, 11: 40}
ANN = (
    sent("cart", item="i0", at=NOW - 3 * MINUTE_MS),
    sent("view", item="i4", at=NOW - 2 * MINUTE_MS),
    sent("purchase", item="i1", at=NOW - MINUTE_MS),
)
FACTORS = np.random.default_rng(5).normal(size=(COUNT, 4)).astype(np.float32)

# Items 0-3 are of category A, 4-7 of B, 8-11 of C; item n was viewed n + 1 times; the lists of item n hold
# n + 1, n + 2 and n + 5 with scores 1, 1/2, 1/4. Ann bought 1, then before that viewed 4, then carted 0.
ANSWERS: dict[Retrieval, list[int]] = {
    Retrieval.ALS: [],  # told by the normal equations, below
    Retrieval.COOCCURRENCE: [2, 3, 6, 5, 9],
    Retrieval.WALK: [2, 3, 6, 5, 9],
    Retrieval.LINEAR: [2, 3, 6, 5, 9],
    Retrieval.ATTRIBUTES: [2, 3, 6, 5, 9],
    Retrieval.SIMILAR: [2, 3, 6, 5, 9],
    Retrieval.BOUGHT_TOGETHER: [2, 3, 6, 5],  # the viewed seed takes no part
    Retrieval.REPEAT: [1, 0, 4],
    Retrieval.CATEGORY: [3, 2, 7, 6, 5],
    Retrieval.POPULAR: [3, 11, 10, 9, 2, 8, 7, 6, 5, 1, 4, 0],  # A three times lifted, B a tenth: they are her taste
    Retrieval.ARRIVALS: [2, 9, 10],
}
STRANGERS: dict[Retrieval, list[int]] = {
    Retrieval.POPULAR: list(range(COUNT))[::-1],
    Retrieval.ARRIVALS: [9, 2, 10],
}


@dataclass(frozen=True)
class World:
    """One shop under one numbering: `place[n]` is the index of item n."""

    query: Query
    source: CandidateSource
    place: list[int]

    def items(self, ranked: Ranked) -> list[int]:
        """The answer in item numbers."""
        number = {index: item for item, index in enumerate(self.place)}
        return [number[index] for index in ranked.indexes.tolist()]


def catalogue(prefix: str) -> ItemTable:
    table = table_of()
    for number in range(COUNT):
        changes: dict[str, Any] = {"categories": ["Shop", "ABC"[number // 4]], "price_cents": 100}
        if number in ARRIVED_DAYS_AGO:
            arrived = np.datetime64(NOW - ARRIVED_DAYS_AGO[number] * DAY_MS, "ms")
            changes["arrived_at"] = f"{arrived}Z"
        table.fold(updated(f"{prefix}{number}", at=NOW - 90 * DAY_MS, **changes), NOW)
        for _ in range(number + 1):
            table.fold(event("view", item=f"{prefix}{number}", user="others", at=NOW - DAY_MS), NOW)
    return table


def world(
    name: Retrieval, shopper: Shopper, *, place: list[int] | None = None, prefix: str = "i", **request: Any
) -> World:
    place = place or list(range(COUNT))
    order = np.argsort(place)
    table = catalogue(prefix)
    shelf = Shelf.of(table, item_rows(table, [f"{prefix}{number}" for number in order]))  # type: ignore[misc]  # plain strings serve as ids here
    sources = default_sources(ItemFactors.of(FACTORS[order], 0.05, 2.0))
    model = Model("r", sources, None, ZoneInfo("UTC"), 0)  # type: ignore[arg-type]  # nothing is scored here
    if "context_row" in request:
        request["context_row"] = table.row_of_id(f"{prefix}{request['context_row']}")
    prepared = prepare(shelf, model, shopper, PageRequest(NOW, **request))
    return World(replace(prepared.query, neighbours=lists(prepared.query, place)), sources[name], place)


def lists(query: Query, place: list[int]) -> Mapping[ListKind, Neighbours]:
    places, number = np.array(place), np.argsort(place)
    around = [[(number[seed] + step) % COUNT for step in (1, 2, 5)] for seed in query.seeds]
    indexes = np.array(around, dtype=np.int64).reshape(-1, 3)
    scores = np.tile(np.array([1.0, 0.5, 0.25], np.float32), (len(indexes), 1))
    return dict.fromkeys(ListKind, Neighbours(places[indexes].astype(np.int32), scores))


def naive_factor(history: History) -> np.ndarray:
    """Hu, Koren, Volinsky: argmin of sum over all items of c (p - x y)^2 + reg |x|^2; untouched: c = 1, p = 0."""
    wide = FACTORS.astype(np.float64)
    confidence, preference = np.ones(COUNT), np.zeros(COUNT)
    for age, index in enumerate(history.indexes):
        confidence[index], preference[index] = 2.0 * history.weights[age] * DEFAULT.als_decay**age, 1.0
    left = sum(confidence[item] * np.outer(wide[item], wide[item]) for item in range(COUNT)) + 0.05 * np.eye(4)
    right = sum(confidence[item] * preference[item] * wide[item] for item in range(COUNT))
    return np.linalg.solve(left, right)


def known_answer(name: Retrieval, query: Query) -> list[int]:
    if name is not Retrieval.ALS:
        return ANSWERS[name]
    scores = FACTORS @ naive_factor(query.history)
    return [item for item in np.argsort(-scores).tolist() if scores[item] > 0 and item not in (0, 1, 4)]


@pytest.fixture(params=list(Retrieval), ids=str)
def name(request: pytest.FixtureRequest) -> Retrieval:
    found: Retrieval = request.param
    return found


def assert_well_formed(ranked: Ranked, query: Query, limit: int) -> None:
    assert len(ranked.indexes) == len(ranked.scores) == len(ranked.via) <= limit
    for column, kind in ((ranked.indexes, np.int32), (ranked.scores, np.float32), (ranked.via, np.int32)):
        assert column.dtype == np.dtype(kind)
    assert len(set(ranked.indexes.tolist())) == len(ranked.indexes)
    assert (ranked.scores > 0).all()
    assert (np.diff(ranked.scores) <= 0).all()
    assert query.eligible[ranked.indexes].all()
    assert set(ranked.via.tolist()) <= {-1, *query.seeds.tolist(), *query.history.indexes.tolist()}


def test_every_source_is_here_and_has_a_limit(name: Retrieval) -> None:
    assert world(name, shopper_of()).source.name is name
    assert LIMITS[name] > 0
    assert name in ANSWERS


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


def test_the_limit_keeps_the_best(name: Retrieval) -> None:
    one = world(name, shopper_of(*ANN))
    whole = one.source.consider(one.query).top(COUNT)
    for limit in range(1, COUNT + 1):
        ranked = one.source.consider(one.query).top(limit)
        assert ranked.indexes.tolist() == whole.indexes[:limit].tolist()
        assert ranked.scores.tolist() == pytest.approx(whole.scores[:limit].tolist())


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
    if name is not Retrieval.CATEGORY:  # there the best of a category sets its scale
        kept = [item for item in unbounded.indexes.tolist() if allowed[item]]
        assert ranked.indexes.tolist() == kept[:limit]


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


def test_nothing_may_be_shown_so_nothing_is(name: Retrieval) -> None:
    one = world(name, shopper_of(*ANN))
    query = replace(one.query, eligible=np.zeros(COUNT, dtype=np.bool_))
    assert not len(one.source.consider(query).top(COUNT).indexes)


@pytest.mark.parametrize(
    "name", [Retrieval.ALS, Retrieval.CATEGORY, Retrieval.COOCCURRENCE, Retrieval.SIMILAR], ids=str
)
def test_what_was_touched_is_left_to_the_repeat_source(name: Retrieval) -> None:
    one = world(name, shopper_of(*ANN))
    assert not {0, 1, 4} & set(one.source.consider(one.query).top(COUNT).indexes.tolist())


def test_the_pages_own_item_is_a_seed_of_rules_though_it_was_only_viewed() -> None:
    one = world(Retrieval.BOUGHT_TOGETHER, shopper_of(*ANN), context_row=4)
    ranked = one.source.consider(one.query).top(COUNT)
    assert one.query.seeds[0] == one.query.context == 4
    assert dict(zip(ranked.indexes.tolist(), ranked.via.tolist(), strict=True))[9] == 4
    stranger = world(Retrieval.BOUGHT_TOGETHER, shopper_of(), context_row=4)
    assert stranger.items(stranger.source.consider(stranger.query).top(COUNT)) == [5, 6, 9]


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
    vector = one.source.factor(one.query)
    assert (
        one.source.consider_for(vector, one.query).top(5).indexes.tolist() == known_answer(Retrieval.ALS, one.query)[:5]
    )


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
