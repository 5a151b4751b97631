"""Orders of the catalogue and walks through them: what does not change is met exactly once."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.catalogue.catalogue_order import CatalogueSort, Cursor, Order, order_of
from functions.catalogue.category_tree import CategoryNode, tree_of
from shared.errors import InvalidCursor
from shared.events import ItemId, from_ms
from shared.features.aggregations import DAY_MS
from shared.features.items import ItemTable
from shared.recommend import Shelf, item_rows
from tests.unit.builders import MANY, MODEST, NOW, all_rows, event, table_of, updated

IDS = [ItemId(f"i{number:02d}") for number in range(12)]


def shop(draw: random.Random) -> ItemTable:
    table = ItemTable()
    for item in IDS:
        arrived = {"arrived_at": from_ms(NOW - draw.randint(0, 3) * DAY_MS).isoformat()} if draw.random() < 0.8 else {}
        table.fold(updated(item, at=NOW - DAY_MS, title=item, price_cents=draw.randint(0, 3), **arrived), NOW)
        for _ in range(draw.randint(0, 2)):
            act(table, item, draw)
    return table


def act(table: ItemTable, item: str, draw: random.Random) -> None:
    at = NOW - draw.randint(0, 5) * DAY_MS
    table.fold(event(draw.choice(["view", "cart", "purchase"]), item=item, at=at), at)


def ordered(table: ItemTable, sort: CatalogueSort) -> Order:
    rows = item_rows(table, IDS)
    return order_of(sort, Shelf.of(table, rows), IDS, np.arange(len(IDS)))


def walk(table: ItemTable, sort: CatalogueSort, size: int, between: Callable[[], None]) -> list[str]:
    """Every page from the first to the last, with something happening after each."""
    met: list[str] = []
    cursor: Cursor | None = None
    while True:
        order = ordered(table, sort)
        start = 0 if cursor is None else order.after(cursor)
        places = range(start, min(start + size, len(IDS)))
        if not places:
            return met
        met += [IDS[order.indexes[place]] for place in places]
        cursor = Cursor.decode(Cursor(sort, float(order.keys[places[-1]]), met[-1]).encode())
        between()


@MODEST
@given(st.sampled_from(CatalogueSort), st.integers(1, 5), st.randoms(use_true_random=False))
def test_an_item_that_does_not_change_is_met_exactly_once(sort: CatalogueSort, size: int, draw: random.Random) -> None:
    table = shop(draw)
    changed: set[str] = set()

    def change() -> None:
        item = draw.choice(IDS)
        changed.add(item)
        table.fold(updated(item, at=NOW, price_cents=draw.randint(0, 3), stock=draw.randint(0, 2)), NOW)
        act(table, item, draw)

    met = walk(table, sort, size, change)
    for item in set(IDS) - changed:
        assert met.count(item) == 1, (item, met)


@MODEST
@given(st.sampled_from(CatalogueSort), st.integers(1, 5), st.randoms(use_true_random=False))
def test_time_that_passes_changes_no_place(sort: CatalogueSort, size: int, draw: random.Random) -> None:
    table = shop(draw)
    later = iter(range(1, 100))

    def pass_time() -> None:  # an item that is not walked through is acted on: every decayed sum is read later
        at = NOW + next(later) * 3_600_001
        table.fold(event("view", item="elsewhere", at=at), at)

    assert sorted(walk(table, sort, size, pass_time)) == IDS


def test_popularity_is_the_order_of_trends_and_ties_go_by_id() -> None:
    table = shop(random.Random(3))
    rows = item_rows(table, IDS)
    shelf = Shelf.of(table, rows)
    scores = shelf.trends.scores
    keys = [-round(math.log2(score), 6) if score else math.inf for score in scores.tolist()]
    expected = sorted(range(len(IDS)), key=lambda index: (keys[index], IDS[index]))
    assert ordered(table, CatalogueSort.POPULARITY).indexes.tolist() == expected


def test_newest_first_and_what_never_arrived_last() -> None:
    table = table_of(
        updated("b", arrived_at="2026-01-02T00:00:00Z"),
        updated("a", arrived_at="2026-01-02T00:00:00Z"),
        updated("c"),
        updated("d", arrived_at="2026-01-03T00:00:00Z"),
    )
    order = order_of(CatalogueSort.NEWEST, Shelf.of(table, all_rows(table)), list("bacd"), np.array([1, 0, 2, 3]))
    assert order.indexes.tolist() == [3, 1, 0, 2]


@MANY
@given(
    st.sampled_from(CatalogueSort), st.floats(allow_nan=False), st.text(max_size=20).filter(lambda text: text.isascii())
)
def test_a_cursor_comes_back_as_it_went(sort: CatalogueSort, key: float, item_id: str) -> None:
    cursor = Cursor(sort, key, item_id)
    assert Cursor.decode(cursor.encode()) == cursor


@MANY
@given(st.one_of(st.text(max_size=40), st.binary(max_size=30).map(lambda raw: raw.hex())))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        Cursor.decode(text)


def test_a_cursor_that_names_no_place_is_refused() -> None:
    with pytest.raises(InvalidCursor):
        Cursor.decode(Cursor(CatalogueSort.PRICE, math.nan, "i").encode())


def test_the_tree_counts_paths_and_not_names() -> None:
    table = table_of(
        updated("a", categories=["Home", "Kitchen"]),
        updated("b", categories=["Home", "Kitchen", "Jugs"]),
        updated("c", categories=["Garden", "Kitchen"]),
        updated("d", categories=["Home"]),
        updated("e", brand="Kitchen"),
        updated("f", categories=["Toys"]),
    )
    tree = tree_of(table, all_rows(table)[:5])
    jugs = CategoryNode("Jugs", ("Home", "Kitchen", "Jugs"), 1, ())
    assert tree.roots == (
        CategoryNode("Garden", ("Garden",), 1, (CategoryNode("Kitchen", ("Garden", "Kitchen"), 1, ()),)),
        CategoryNode("Home", ("Home",), 3, (CategoryNode("Kitchen", ("Home", "Kitchen"), 2, (jugs,)),)),
    )
    assert (tree.items_count, tree.uncategorised_count) == (5, 1)
    assert tree_of(table, all_rows(table)[:0]).roots == ()


@MODEST
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), max_size=12))
def test_every_node_counts_the_items_below_its_path(paths: list[list[str]]) -> None:
    table = table_of(*(updated(f"i{number}", categories=path) for number, path in enumerate(paths)))
    tree = tree_of(table, all_rows(table))
    found: dict[tuple[str, ...], int] = {}

    def look(nodes: tuple[CategoryNode, ...]) -> None:
        assert [node.name for node in nodes] == sorted(node.name for node in nodes)
        for node in nodes:
            found[node.path] = node.items_count
            look(node.children)

    look(tree.roots)
    prefixes = {tuple(path[:depth]) for path in paths for depth in range(1, len(path) + 1)}
    assert found == {one: sum(tuple(path[: len(one)]) == one for path in paths) for one in prefixes}
    assert tree.uncategorised_count == sum(not path for path in paths)
