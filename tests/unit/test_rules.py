from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import Preferences
from shared.features.aggregations import DAY_MS
from shared.features.items import ItemTable
from shared.ranking.rules import Eligibility, diversify, eligibility
from tests.unit.builders import MANY, NOW, Sent, all_rows, sent, shopper_of, table_of, updated, view_of

ITEMS = ("cup", "mug", "rake", "gone", "secret")


def shop() -> ItemTable:
    return table_of(
        updated("cup", categories=["Home", "Kitchen", "Cups"], brand="Acme", price_cents=500, stock=3),
        updated("mug", categories=["Home", "Kitchen"], brand="Bolt", price_cents=900),
        updated("rake", categories=["Garden"], price_cents=2500),
        updated("gone", categories=["Home"], stock=0),
        updated("secret", categories=["Home"], hidden=True),
    )


def shown(*history: Sent, **rules: Any) -> tuple[list[str], dict[str, int]]:
    table = shop()
    chosen = eligibility(table, all_rows(table), view_of(shopper_of(*history), table), **rules)
    return [item for item, allowed in zip(ITEMS, chosen.allowed, strict=True) if allowed], chosen.removed


def test_what_is_hidden_or_sold_out_is_never_shown() -> None:
    assert shown() == (["cup", "mug", "rake"], {"unavailable": 2})


@pytest.mark.parametrize(
    ("category", "items"),
    [("Home", ["cup", "mug"]), ("Kitchen", ["cup", "mug"]), ("Cups", ["cup"]), ("Garden", ["rake"]), ("Acme", [])],
)
def test_a_category_holds_at_any_depth(category: str, items: list[str]) -> None:
    assert shown(category=category)[0] == items


def test_a_category_nobody_has_is_empty() -> None:
    assert shown(category="Nowhere") == ([], {"unavailable": 2, "category": 3})


def test_what_the_request_excludes_is_left_out() -> None:
    assert shown(excluded=[0, 3, 99]) == (["mug", "rake"], {"unavailable": 2, "excluded": 1})


def test_what_was_bought_is_withheld_for_its_window() -> None:
    bought = sent("purchase", item="cup", at=NOW - 30 * DAY_MS + 1)
    assert shown(bought, bought_window_days=30) == (["mug", "rake"], {"unavailable": 2, "bought": 1})
    for history, days in (((bought,), 29), ((bought,), 0), ((sent("cart", item="cup"),), 30)):
        assert shown(*history, bought_window_days=days) == (["cup", "mug", "rake"], {"unavailable": 2})
    edge = sent("purchase", item="cup", at=NOW - 30 * DAY_MS)
    assert "cup" in shown(edge, bought_window_days=30)[0]


def test_an_item_no_catalogue_knows_withholds_nothing() -> None:
    assert shown(sent("purchase", item="unheard"), bought_window_days=30)[0] == ["cup", "mug", "rake"]


@pytest.mark.parametrize(
    ("preferences", "items"),
    [
        (Preferences(), ["cup", "mug", "rake"]),
        (Preferences(hidden_items=["cup", "unheard"]), ["mug", "rake"]),
        (Preferences(hidden_categories=["Kitchen"]), ["rake"]),
        (Preferences(hidden_categories=["Nowhere", "Garden"]), ["cup", "mug"]),
        (Preferences(hidden_brands=["Acme", "Nobody"]), ["mug", "rake"]),
        (Preferences(min_price_cents=900), ["mug", "rake"]),
        (Preferences(max_price_cents=900), ["cup", "mug"]),
        (Preferences(min_price_cents=501, max_price_cents=899), []),
        (Preferences(hidden_brands=["Acme"], hidden_categories=["Garden"]), ["mug"]),
    ],
)
def test_preferences_are_kept(preferences: Preferences, items: list[str]) -> None:
    found, removed = shown(preferences=preferences)
    assert found == items
    assert removed.get("preferences", 0) == 3 - len(items)


def test_rules_count_what_they_took_and_no_item_twice() -> None:
    chosen = Eligibility(np.array([True, True, True])).without("one", np.array([True, False, False]))
    chosen = chosen.without("two", np.array([True, True, False])).without("three", np.array([True, True, False]))
    assert chosen.allowed.tolist() == [False, False, True]
    assert chosen.removed == {"one": 1, "two": 1}


def naive_page(order: list[int], category: list[int], limit: int) -> list[int]:
    """Walk down the list; a category that has had its share waits; who waited fills what is left."""
    most = max(1, round(6 * limit / 20))
    page: list[int] = []
    waiting: list[int] = []
    shown_of: Counter[int] = Counter()
    for position in order:
        code = category[position]
        if code >= 0 and shown_of[code] >= most:
            waiting.append(position)
        else:
            page.append(position)
            shown_of[code] += 1
    return (page[:limit] + waiting)[:limit] if len(page) < limit else page[:limit]


@MANY
@given(st.lists(st.integers(-1, 4), max_size=60), st.randoms(use_true_random=False), st.integers(1, 30))
def test_variety_is_what_a_greedy_walk_finds(category: list[int], random: Any, limit: int) -> None:
    order = list(range(len(category)))
    random.shuffle(order)
    page = diversify(np.array(order, dtype=np.int64), np.array(category, dtype=np.int64), limit, 6)
    assert page.tolist() == naive_page(order, category, limit)
    assert len(set(page.tolist())) == len(page) == min(limit, len(order))


def test_a_page_of_one_category_is_full_and_in_order() -> None:
    assert diversify(np.arange(30), np.zeros(30, np.int64), 20, 6).tolist() == list(range(20))


def test_variety_bounds_a_category() -> None:
    category = np.array([0] * 15 + [1] * 15 + [2] * 15 + [3] * 15)
    page = diversify(np.arange(60), category, 20, 6)
    assert np.bincount(category[page]).tolist() == [6, 6, 6, 2]
