"""Items younger than the release: on the shelf, in the sources that can know them, never where only factors speak."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from shared.candidates.als import ItemFactors
from shared.candidates.query import ListKind, Neighbours
from shared.candidates.young_neighbours import nearest_by_attributes
from shared.events import ItemId
from shared.features.aggregations import DAY_MS, MINUTE_MS
from shared.features.definitions import Retrieval
from shared.features.items import ItemTable
from shared.recommend import Model, PageRequest, Shelf, default_sources, item_rows, prepare, rank, retrieve
from tests.unit.builders import NOW, Sent, event, sent, shopper_of, table_of, updated

COUNT = 12
RELEASED = [ItemId(f"i{number}") for number in range(COUNT)]
FACTORS = np.random.default_rng(4).normal(size=(COUNT, 3)).astype(np.float32)
ARRIVED = "2023-11-14T00:00:00Z"


class Flat:
    """No order of its own: sources' ranks and indexes decide nothing."""

    def score(self, features: np.ndarray) -> np.ndarray:
        return np.zeros(len(features), np.float32)


def shop() -> ItemTable:
    table = table_of()
    for number, item in enumerate(RELEASED):
        changes: dict[str, Any] = {
            "categories": ["Shop", "AB"[number % 2]],
            "brand": f"brand {number % 3}",
            "price_cents": 1000,
        }
        table.fold(updated(item, at=NOW - DAY_MS, title=f"Thing {number}", **changes), NOW)
        table.fold(event("view", item=item, user="other", at=NOW - number * MINUTE_MS), NOW)
    return table


def add_young(table: ItemTable, item: str = "young", **changes: Any) -> int:
    said: dict[str, Any] = {
        "title": "Young",
        "categories": ["Shop", "A"],
        "arrived_at": ARRIVED,
        "price_cents": 900,
    } | changes
    table.fold(updated(item, at=NOW - MINUTE_MS, **said), NOW)
    return table.row_of[list(table.row_of)[-1]]


def shelf_of(table: ItemTable) -> Shelf:
    return Shelf.of(table, item_rows(table, RELEASED), with_young=True)


def model() -> Model:
    return Model("r", default_sources(ItemFactors.of(FACTORS, 0.1, 1.0)), Flat(), ZoneInfo("UTC"), 30)


def carried(shelf: Shelf, *history: Sent, **asked: Any) -> dict[int, set[Retrieval]]:
    """Candidates with the sources that carry them."""
    request = PageRequest(NOW, **asked)
    prepared = prepare(shelf, model(), shopper_of(*history), request)
    count = len(prepared.seeds)
    empty = Neighbours(np.full((count, 1), -1, np.int32), np.zeros((count, 1), np.float32))
    found = retrieve(prepared, model(), dict.fromkeys(ListKind, empty))
    page = rank(shelf, model(), prepared, found, request)
    assert len(page.indexes) == len(set(page.indexes.tolist()))
    names = list(Retrieval)
    return {
        index: {names[column] for column in np.flatnonzero(ranks)}
        for index, ranks in zip(found.indexes.tolist(), found.retrieval.ranks, strict=True)
    }


def test_only_described_items_that_are_not_deleted_stand_behind_the_release() -> None:
    table = shop()
    add_young(table)
    add_young(table, "nameless", title="")
    add_young(table, "deleted", deleted=True)
    table.fold(event("view", item="unheard", at=NOW), NOW)
    last = add_young(table, "last")
    shelf = shelf_of(table)
    assert shelf.released == COUNT
    assert [table.products[row].item_id for row in shelf.rows.tolist()] == [*RELEASED, "young", "last"]
    assert shelf.index_of_row[last] == COUNT + 1
    assert (shelf.index_of_row[shelf.rows] == np.arange(COUNT + 2)).all()
    assert (shelf.index_of_row >= 0).sum() == COUNT + 2
    assert len(Shelf.of(table, item_rows(table, RELEASED)).rows) == COUNT


def test_a_shelf_without_young_items_is_the_release() -> None:
    table = shop()
    rows = item_rows(table, RELEASED)
    assert Shelf.of(table, rows, with_young=True).rows is rows


def test_a_young_item_comes_by_arrivals_for_a_stranger_and_for_one_who_likes_the_like() -> None:
    table = shop()
    add_young(table)
    shelf = shelf_of(table)
    assert Retrieval.ARRIVALS in carried(shelf)[COUNT]
    assert Retrieval.ARRIVALS in carried(shelf, sent("view", item="i0", at=NOW - MINUTE_MS))[COUNT]


def test_a_young_item_with_events_comes_by_popularity() -> None:
    table = shop()
    add_young(table)
    for number in range(5):
        table.fold(event("purchase", item="young", user=f"u{number}", at=NOW - MINUTE_MS), NOW)
    assert Retrieval.POPULAR in carried(shelf_of(table), sent("view", item="i0", at=NOW - MINUTE_MS))[COUNT]


def test_who_touched_a_young_item_alone_has_a_history_and_no_factor() -> None:
    table = shop()
    add_young(table)
    shelf = shelf_of(table)
    sources = carried(shelf, sent("view", item="young", at=NOW - MINUTE_MS))
    assert Retrieval.REPEAT in sources[COUNT]
    assert not any(Retrieval.ALS in one for one in sources.values())
    assert any(Retrieval.POPULAR in one for index, one in sources.items() if index < COUNT)


def test_a_young_item_among_others_changes_no_factor() -> None:
    table = shop()
    add_young(table)
    shelf = shelf_of(table)
    known = (sent("view", item="i3", at=NOW - 3 * MINUTE_MS), sent("cart", item="i5", at=NOW - 2 * MINUTE_MS))
    with_young = (known[0], sent("view", item="young", at=NOW - MINUTE_MS), known[1])
    factors = ItemFactors.of(FACTORS, 0.1, 1.0)
    one, other = (
        factors.fold_in(prepare(shelf, model(), shopper_of(*past), PageRequest(NOW)).query.history, 0.9, 100)
        for past in (known, with_young)
    )
    assert one.tolist() == other.tolist()
    assert one.any()


def test_the_page_of_a_young_item_is_seeded_by_it() -> None:
    table = shop()
    row = add_young(table)
    shelf = shelf_of(table)
    prepared = prepare(shelf, model(), shopper_of(), PageRequest(NOW, context_row=row))
    assert prepared.seeds.tolist() == [COUNT]
    assert COUNT not in carried(shelf, context_row=row)


@pytest.mark.parametrize(
    ("liked", "nearer", "farther"),
    [
        ({"categories": ["Shop", "B"]}, {"categories": ["Shop", "B"]}, {"categories": ["Shop", "C"]}),
        ({"brand": "Acme"}, {"brand": "Acme"}, {"brand": "Other"}),
        ({"price_cents": 1000}, {"price_cents": 1100}, {"price_cents": 9000}),
        ({"price_cents": 1000}, {"price_cents": 9000}, {"price_cents": 0}),
        ({"categories": ["Shop", "B"]}, {}, {"arrived_at": "2023-11-01T00:00:00Z"}),
    ],
)
def test_arrivals_with_her_attributes_come_first(
    liked: dict[str, Any], nearer: dict[str, Any], farther: dict[str, Any]
) -> None:
    plain: dict[str, Any] = {"categories": ["Shop", "Z"], "brand": None, "price_cents": 5000}
    table = table_of()
    table.fold(updated("hers", at=NOW - DAY_MS, title="Hers", **plain | liked), NOW)
    # The farther one has the lower row: a tie would put it first.
    for name, changes in (("farther", farther), ("nearer", nearer)):
        said = plain | {"title": name, "arrived_at": ARRIVED} | changes
        table.fold(updated(name, at=NOW - MINUTE_MS, **said), NOW)
    shelf = Shelf.of(table, item_rows(table, [ItemId("hers")]), with_young=True)
    query = prepare(shelf, model(), shopper_of(sent("view", item="hers", at=NOW - MINUTE_MS)), PageRequest(NOW)).query
    arrivals = model().sources[Retrieval.ARRIVALS].consider(query).top(5)
    assert [str(table.products[row].item_id) for row in shelf.rows[arrivals.indexes]] == ["nearer", "farther"]
    assert arrivals.scores[0] > arrivals.scores[1]


def test_like_items_share_category_brand_price_and_words() -> None:
    table = table_of(
        updated("asked", title="Red enamel jug", categories=["Home", "Jugs"], brand="Acme", price_cents=1000),
        updated("far", title="Garden hose", categories=["Garden"], brand="Other", price_cents=1000),
        updated("same-shelf", title="Glass carafe", categories=["Home", "Jugs"], brand="Other", price_cents=1000),
        updated("dear", title="Glass carafe", categories=["Home", "Jugs"], brand="Other", price_cents=9000),
        updated("same-brand", title="Pan", categories=["Home", "Pans"], brand="Acme", price_cents=1000),
        updated("twin", title="Blue ENAMEL jug", categories=["Home", "Jugs"], brand="Acme", price_cents=1000),
    )
    rows = np.arange(len(table))
    places, scores = nearest_by_attributes(table, 0, rows, 10)
    names = [str(table.products[row].item_id) for row in rows[places].tolist()]
    assert names == ["twin", "same-shelf", "dear", "same-brand"]
    assert (np.diff(scores) < 0).all()
    assert 0 < scores.min() <= scores.max() < 1
    assert nearest_by_attributes(table, 0, rows, 2)[0].tolist() == places[:2].tolist()
    assert nearest_by_attributes(table, 0, rows[:1], 5)[0].tolist() == []
