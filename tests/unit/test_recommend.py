from __future__ import annotations

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.candidates.als import ItemFactors
from shared.candidates.merge import CandidateSet
from shared.candidates.opinion import Listed
from shared.candidates.params import DEFAULT
from shared.candidates.query import ListKind, Neighbours
from shared.events import ItemId, Preferences
from shared.features.aggregations import DAY_MS, MINUTE_MS
from shared.features.definitions import Retrieval
from shared.features.items import ItemTable
from shared.features.shard import Shopper
from shared.features.vector import SCHEMA, Matrix
from shared.recommend import (
    Model,
    Page,
    PageRequest,
    Prepared,
    Shelf,
    default_sources,
    item_rows,
    prepare,
    rank,
    retrieve,
    vectorize,
)
from tests.unit.builders import MODEST, NOW, Sent, event, histories, sent, shopper_of, table_of, updated

COUNT = 40
ARRIVED = "2023-11-10T00:00:00Z"
FACTORS = np.random.default_rng(2).normal(size=(COUNT, 3)).astype(np.float32)
ITEM_IDS = [ItemId(f"i{number}") for number in range(COUNT)]


class PriceScorer:
    """Dear things first: an order that no other part of the code could come by."""

    def score(self, features: Matrix) -> NDArray[np.float32]:
        assert features.shape[1] == len(SCHEMA.names)
        return features[:, SCHEMA.names.index("item_price_log")]


def shop() -> ItemTable:
    table = table_of()
    for number, item in enumerate(ITEM_IDS):
        arrived = {"arrived_at": ARRIVED} if number % 5 == 0 else {}
        table.fold(
            updated(item, at=NOW - DAY_MS, price_cents=100 + number, categories=[f"c{number % 4}"], **arrived), NOW
        )
        table.fold(event("view", item=item, user="other", at=NOW - number * MINUTE_MS), NOW)
    return table


def model(**changes: Any) -> Model:
    sources = default_sources(ItemFactors.of(FACTORS, 0.1, 1.0))
    return replace(Model("r1", sources, PriceScorer(), ZoneInfo("UTC"), 30), **changes)


def no_lists(prepared: Prepared) -> dict[ListKind, Neighbours]:
    count = len(prepared.seeds)
    return dict.fromkeys(ListKind, Neighbours(np.full((count, 2), -1, np.int32), np.zeros((count, 2), np.float32)))


def page_of(shopper: Shopper, table: ItemTable | None = None, of: Model | None = None, **request: Any) -> Page:
    shelf = Shelf.of(table := table or shop(), item_rows(table, ITEM_IDS))
    asked = PageRequest(request.pop("as_of", NOW), **request)
    used = of or model()
    prepared = prepare(shelf, used, shopper, asked)
    return rank(shelf, used, prepared, retrieve(prepared, used, no_lists(prepared)), asked)


ANN = (
    sent("view", item="i1", at=NOW - 3 * MINUTE_MS),
    sent("cart", item="i2", at=NOW - 2 * MINUTE_MS),
    sent("purchase", item="i3", at=NOW - MINUTE_MS),
)


def test_a_page_is_ranked_by_the_ranker_and_withholds_what_was_bought() -> None:
    page = page_of(shopper_of(*ANN), limit=40)
    assert len(page.positions) == 39
    assert 3 not in page.indexes
    assert page.removed == {"bought": 1}
    assert page.features.shape == (39, len(SCHEMA.names))
    assert (page.propensities == 1).all()
    assert page.explored_slot is None
    assert np.sort(page.indexes).tolist() == [number for number in range(40) if number != 3]


def test_the_best_of_a_page_come_first_within_variety() -> None:
    page = page_of(shopper_of(*ANN), limit=4)
    # One of a category on so short a page: the dearest of each.
    assert page.indexes.tolist() == [39, 38, 37, 36]


REQUESTS = st.builds(
    PageRequest,
    as_of=st.just(NOW),
    limit=st.integers(1, 25),
    category=st.sampled_from([None, "c1", "nowhere"]),
    excluded_rows=st.frozensets(st.integers(0, COUNT - 1), max_size=5),
    context_row=st.sampled_from([None, 0, 7]),
    exploration=st.sampled_from([0.0, 1.0]),
    recommendation_id=st.just("r-1"),
)


@MODEST
@given(histories(items=["i0", "i1", "i7", "unheard"]), REQUESTS)
def test_no_page_breaks_a_rule(history: list[Sent], request: PageRequest) -> None:
    table, category, limit = shop(), request.category, request.limit
    table.fold(updated("i4", at=NOW, stock=0), NOW)
    shopper = Shopper(shopper_of(*history).state, Preferences(hidden_items=["i5"], max_price_cents=130))
    page = page_of(shopper, table, **{name: getattr(request, name) for name in PageRequest.__dataclass_fields__})
    own = [] if request.context_row is None else [request.context_row]
    forbidden = {4, 5, *range(31, COUNT), *request.excluded_rows, *own}
    shown = page.indexes.tolist()
    assert not forbidden & set(shown)
    assert len(set(shown)) == len(shown) == len(page.propensities) <= limit
    if category is not None:
        assert {f"c{index % 4}" for index in shown} <= {category}
    allowed = [i for i in range(COUNT) if i not in forbidden and category in (None, f"c{i % 4}")]
    bought = {str(one.event.item_id) for one in history if one.kind.value == "purchase"}
    assert len(shown) >= min(limit, len([i for i in allowed if f"i{i}" not in bought]))
    assert ((page.propensities > 0) & (page.propensities <= 1)).all()


def test_a_page_does_not_recommend_its_own_item() -> None:
    for shopper in (shopper_of(), shopper_of(*ANN)):
        assert 39 in page_of(shopper, limit=40).indexes
        assert 39 not in page_of(shopper, limit=40, context_row=39).indexes


def test_strangers_and_empty_shops_have_pages() -> None:
    assert len(page_of(shopper_of(), limit=20).indexes) == 20
    shelf = Shelf.of(table := ItemTable(), item_rows(table, []))
    empty = model(sources=default_sources(ItemFactors.of(FACTORS[:0], 0.1, 1.0)))
    for shopper in (shopper_of(), shopper_of(*ANN)):
        prepared = prepare(shelf, empty, shopper, PageRequest(NOW, exploration=1.0))
        page = rank(shelf, empty, prepared, retrieve(prepared, empty, no_lists(prepared)), PageRequest(NOW))
        assert len(page.indexes) == 0


def test_seeds_are_the_last_items_after_the_pages_own() -> None:
    table = shop()
    shelf = Shelf.of(table, item_rows(table, ITEM_IDS))
    plain = prepare(shelf, model(), shopper_of(*ANN), PageRequest(NOW))
    assert plain.seeds.tolist() == [3, 2, 1]
    weights = np.array([5, 3 * 0.5, 0.5**2])
    assert plain.query.seed_weights(0.5).tolist() == pytest.approx(weights * DEFAULT.session_weight)
    later = prepare(shelf, model(), shopper_of(*ANN), PageRequest(NOW + 3_600_000))
    assert later.query.seed_weights(0.5).tolist() == pytest.approx(weights), "the session is over"
    for row, seeds in ((2, [2, 3, 1]), (9, [9, 3, 2, 1])):
        own = prepare(shelf, model(), shopper_of(*ANN), PageRequest(NOW, context_row=row))
        assert own.seeds.tolist() == seeds
        assert own.query.seed_weights(0.5)[0] == DEFAULT.context_weight
        assert own.query.context == row
    many = shopper_of(*(sent("view", item=f"i{number}", at=NOW + number) for number in range(30)))
    assert prepare(shelf, model(), many, PageRequest(NOW)).seeds.tolist() == list(range(29, 29 - DEFAULT.seeds, -1))


def test_items_younger_than_the_shelf_break_nothing() -> None:
    table = shop()
    shelf = Shelf.of(table, item_rows(table, ITEM_IDS))
    table.fold(updated("young", price_cents=5), NOW)
    young = table.row_of_id("young")
    shopper = shopper_of(*ANN, sent("view", item="young"))
    for request in (PageRequest(NOW), PageRequest(NOW, context_row=young)):
        prepared = prepare(shelf, model(), shopper, request)
        assert prepared.seeds.tolist() == [3, 2, 1]
        candidates = retrieve(prepared, model(), no_lists(prepared))
        assert len(rank(shelf, model(), prepared, candidates, request).indexes) == 20


def test_an_item_the_night_did_not_know_is_no_candidate() -> None:
    table = shop()
    table.fold(updated("new", price_cents=10**6), NOW)
    assert page_of(shopper_of(*ANN), table, limit=50).indexes.max() < COUNT


def explored(number: int) -> Page:
    """A stranger's page over a ranker's favourite 20, so that arrivals are left over."""
    return page_of(shopper_of(*ANN), limit=20, exploration=0.5, recommendation_id=f"r-{number}")


def test_exploration_gives_a_place_to_an_arrival_and_says_with_what_probability() -> None:
    plain = page_of(shopper_of(*ANN), limit=20)
    unseen = set(range(0, COUNT, 5)) - set(plain.indexes.tolist())
    pages = [explored(number) for number in range(30)]
    changed = [page for page in pages if page.explored_slot is not None]
    assert 5 <= len(changed) <= 25
    for page in changed:
        slot = page.explored_slot
        assert slot is not None
        assert slot >= 10
        assert page.indexes[slot] in unseen
        assert page.propensities[slot] == pytest.approx(0.5 / (len(unseen) * 10))
        others = np.arange(20) != slot
        assert page.indexes[others].tolist() == plain.indexes[others].tolist()
        assert (page.propensities[others] == 1).all()
    again = explored(0)
    assert again.indexes.tolist() == pages[0].indexes.tolist()


def test_nightly_lists_stand_in_for_their_sources() -> None:
    table = shop()
    shelf = Shelf.of(table, item_rows(table, ITEM_IDS))
    prepared = prepare(shelf, model(), shopper_of(*ANN), PageRequest(NOW))
    nightly = Listed.of(np.array([30, 8], np.int32), np.array([2.0, 1.0]), prepared.query.eligible)
    candidates = retrieve(prepared, model(), no_lists(prepared), {Retrieval.ALS: nightly})
    als = list(Retrieval).index(Retrieval.ALS)
    ranks = dict(zip(candidates.indexes.tolist(), candidates.retrieval.ranks[:, als].tolist(), strict=True))
    assert {index: place for index, place in ranks.items() if place} == {30: 1, 8: 2}


def test_the_matrix_is_that_of_the_candidates_at_the_instant_asked() -> None:
    table = shop()
    shelf = Shelf.of(table, item_rows(table, ITEM_IDS))
    prepared = prepare(shelf, model(), shopper_of(*ANN), PageRequest(NOW + DAY_MS))
    candidates = retrieve(prepared, model(), no_lists(prepared))
    matrix = vectorize(shelf, model(), prepared, candidates)
    price, recency = (SCHEMA.names.index(name) for name in ("item_price_log", "user_action_recency_hours"))
    np.testing.assert_allclose(matrix[:, price], np.log(100 + candidates.indexes), rtol=1e-6)
    assert matrix[0, recency] == pytest.approx(24 + 1 / 60)
    assert isinstance(candidates, CandidateSet)


def test_a_shelf_takes_stock_anew_when_the_table_moves() -> None:
    table = shop()
    shelf = Shelf.of(table, item_rows(table, ITEM_IDS))
    assert shelf.version == table.version
    assert shelf.index_of_row[shelf.rows].tolist() == list(range(COUNT))
    table.fold(event("view", item="i1"), NOW)
    assert shelf.version != table.version


def test_the_same_request_has_the_same_page_whatever_the_rows_of_a_process() -> None:
    pages = []
    for order in (ITEM_IDS, ITEM_IDS[::-1]):
        table = ItemTable()
        item_rows(table, order)
        source = shop()
        for item in ITEM_IDS:
            row = source.row_of_id(item)
            assert row is not None
            table.offer(source.entry(row))
            table.counters.reserve(len(table))
        for number, item in enumerate(ITEM_IDS):
            table.fold(event("view", item=item, user="other", at=NOW - number * MINUTE_MS), NOW)
        shopper = shopper_of(*(sent("view", item=f"i{n}", event_id=f"v{n}") for n in (4, 9, 2)))
        pages.append(page_of(shopper, table, limit=20))
    assert pages[0].indexes.tolist() == pages[1].indexes.tolist()
    np.testing.assert_allclose(pages[0].features, pages[1].features, rtol=1e-6)
    assert pages[0].candidates.via.tolist() == pages[1].candidates.via.tolist()
