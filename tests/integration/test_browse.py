"""Browsing through the API: orders, filters, cursors and the tree of categories, over what may be shown now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from functions.api.browse_models import Categories
from local.embedded import EmbeddedServers
from tests.integration.api_shop import (
    GONE,
    HIDDEN,
    ApiShop,
    behaviour,
    ids,
    item_id,
    item_update,
    open_shop,
    problem_of,
)


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


def walk(shop: ApiShop, **query: Any) -> list[list[str]]:
    """The ids of each page, by cursors."""
    pages: list[list[str]] = []
    cursor = None
    while True:
        page = shop.get("/items", **query, **({"cursor": cursor} if cursor else {}))
        pages.append(ids(page))
        cursor = page["next_cursor"]
        if cursor is None:
            return pages


def test_every_order_is_walked_from_end_to_end(shop: ApiShop) -> None:
    shown = {item_id(index) for index in range(240)} - {item_id(GONE), item_id(HIDDEN)}
    keys: dict[str, Callable[[Any], Any]] = {
        "id": lambda item: item["item_id"],
        "price": lambda item: (item["price_cents"], item["item_id"]),
        "-price": lambda item: (-item["price_cents"], item["item_id"]),
        "newest": lambda item: (tuple(-ord(one) for one in item["arrived_at"]), item["item_id"]),
    }
    for sort, key in keys.items():
        pages = walk(shop, sort=sort, limit=97)
        assert [len(page) for page in pages] == [97, 97, 44]
        met = [one for page in pages for one in page]
        assert len(met) == len(set(met))
        assert set(met) == shown
        first = shop.get("/items", sort=sort, limit=100)["items"]
        assert first == sorted(first, key=key)
    popular = [one for page in walk(shop, sort="popularity", limit=100) for one in page]
    assert set(popular) == shown
    scores = {one["item_id"]: one["score"] for one in shop.get("/popular", limit=100)["items"]}
    assert [scores[one] for one in popular[:50]] == pytest.approx(list(scores.values())[:50], rel=1e-5)


def test_pages_by_number_are_those_by_cursor(shop: ApiShop) -> None:
    by_cursor = walk(shop, sort="-price")
    by_number = [ids(shop.get("/items", sort="-price", page=number)) for number in range(1, 6)]
    assert by_cursor == by_number
    page = shop.get("/items", sort="-price", cursor=shop.get("/items", sort="-price")["next_cursor"])
    assert (page["page"], page["pages"], page["total"]) == (None, 5, 238)


def test_filters_go_together(shop: ApiShop) -> None:
    found = shop.get("/items", category="Category 2", min_price_cents=545, max_price_cents=550, sort="-price")
    assert ids(found) == [item_id(index) for index in range(50, 44, -1)]
    assert found["total"] == 6
    assert shop.get("/items", category_path=["Shop", "Category 2"])["total"] == 20
    assert shop.get("/items", category_path=["Category 2"])["total"] == 0
    assert shop.get("/items", category_path=["Shop", "Nowhere"])["total"] == 0
    shop.post({**item_update(45), "changes": {"stock": None}})
    shop.settle()
    assert shop.get("/items", category="Category 2")["total"] == 20
    assert shop.get("/items", category="Category 2", in_stock="true")["total"] == 19


def test_nothing_is_skipped_or_met_twice_while_the_shop_moves(shop: ApiShop) -> None:
    first = shop.get("/items", sort="price", limit=20)
    moved = ids(first)[3]
    # One that was shown gets dearer, one that was not gets cheaper, one leaves, two come, the cursor's own item leaves.
    shop.post(item_update(int(moved[4:]), price_cents=10**6), item_update(200, price_cents=1))
    shop.post(item_update(60, stock=0), item_update(int(ids(first)[-1][4:]), hidden=True))
    shop.post({**item_update(1, title="New", price_cents=2), "item_id": "new-cheap"})
    shop.post({**item_update(1, title="New", price_cents=10**7), "item_id": "new-dear"})
    shop.settle()
    rest: list[str] = []
    cursor = first["next_cursor"]
    while cursor:
        page = shop.get("/items", sort="price", limit=50, cursor=cursor)
        rest += ids(page)
        cursor = page["next_cursor"]
    met = ids(first) + rest
    unchanged = {item_id(index) for index in range(240)} - {item_id(GONE), item_id(HIDDEN), moved, ids(first)[-1]}
    unchanged -= {item_id(200), item_id(60)}
    assert all(met.count(one) == 1 for one in unchanged)
    assert "new-dear" in rest
    assert item_id(60) not in rest


def test_popularity_is_walked_while_shoppers_act_on_other_things(shop: ApiShop) -> None:
    first = shop.get("/items", sort="popularity", limit=30)
    shop.post(*(behaviour(f"u{number}", GONE) for number in range(5)))
    shop.settle()
    pages, cursor = [ids(first)], first["next_cursor"]
    while cursor:
        page = shop.get("/items", sort="popularity", limit=30, cursor=cursor)
        pages.append(ids(page))
        cursor = page["next_cursor"]
    met = [one for page in pages for one in page]
    assert len(met) == len(set(met)) == 238


NONSENSE: list[dict[str, Any]] = [
    {"cursor": "x"}, {"cursor": "!" * 9}, {"cursor": "é"}, {"sort": "best"}, {"limit": 0}, {"limit": 101},
    {"min_price_cents": -1}, {"min_price_cents": "cheap"}, {"page": 0}, {"category_path": ""},
    {"category_path": ["a"] * 11},
]  # fmt: skip


def test_what_makes_no_sense_is_a_422_and_a_cursor_belongs_to_its_order(shop: ApiShop) -> None:
    for query in NONSENSE:
        problem_of(shop.client.get("/items", params=query), 422)
    cursor = shop.get("/items", sort="price")["next_cursor"]
    problem = problem_of(shop.client.get("/items", params={"sort": "newest", "cursor": cursor}), 422)
    assert problem["type"].endswith("invalid_cursor")


def test_the_tree_counts_what_may_be_shown_now(shop: ApiShop) -> None:
    tree = Categories.model_validate(shop.get("/categories"))
    root = tree.categories[0]
    assert [one.name for one in tree.categories] == ["Shop"]
    assert (tree.items_count, root.items_count, tree.uncategorised_count) == (238, 238, 0)
    assert [(one.name, one.items_count) for one in root.children][:2] == [("Category 0", 18), ("Category 1", 20)]
    assert root.children[0].path == ["Shop", "Category 0"]
    for node in root.children:
        assert shop.get("/items", category_path=node.path)["total"] == node.items_count
    shop.post(item_update(30, stock=0), item_update(31, categories=["Garden", "Category 1"]))
    shop.settle()
    tree = Categories.model_validate(shop.get("/categories"))
    assert [(one.name, one.items_count) for one in tree.categories] == [("Garden", 1), ("Shop", 236)]
    assert shop.get("/items", category_path=["Garden", "Category 1"])["total"] == 1
    assert shop.get("/items", category="Category 1")["total"] == 19


def test_preferences_hold_while_browsing(shop: ApiShop) -> None:
    preferences = {"hidden_categories": ["Category 3"], "max_price_cents": 600}
    shop.post({**behaviour("dora", 0, "preferences_set", changes=preferences), "item_id": None, "price_cents": None})
    shop.settle()
    page = shop.get("/items", user_id="dora", limit=100)
    assert page["total"] == 101 - 20 - 2
    assert not page["preferences_unavailable"]
