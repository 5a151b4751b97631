"""Favourite categories: a stranger's page begins there, others find them beside what they did."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from shared.candidates.favourites import FAVOURITE_WEIGHT, PLACE_DECAY, favourite_taste
from shared.candidates.params import PopularParams
from shared.candidates.popular import PopularSource
from shared.events import ItemId, Preferences
from shared.features.aggregations import DAY_MS, MINUTE_MS
from shared.features.items import ItemTable
from shared.features.replay import LoggedEvent, UserShards
from shared.features.shard import Shopper
from shared.recommend import PageRequest, Shelf, item_rows, prepare
from tests.unit.builders import NOW, event, sent, shopper_of, table_of, updated
from tests.unit.test_recommend import model

LEAVES = ("Pans", "Knives", "Lamps", "Sofas", "Vases", "Rugs", "Hooks")
EACH = 6
ITEMS = [ItemId(f"{leaf}-{number}") for leaf in LEAVES for number in range(EACH)]


def shop(order: tuple[str, ...] = LEAVES) -> ItemTable:
    """Categories get their codes in this order; the earlier a leaf in LEAVES, the more popular its items."""
    table = table_of()
    for leaf in order:
        root = "Kitchen" if leaf in {"Pans", "Knives"} else "Home"
        for number in range(EACH):
            item = f"{leaf}-{number}"
            table.fold(updated(item, at=NOW - DAY_MS, categories=[root, leaf], brand=leaf, price_cents=100), NOW)
            seen = NOW - (LEAVES.index(leaf) * EACH + number) * MINUTE_MS
            table.fold(event("view", item=item, user="other", at=seen), NOW)
    return table


def wants(*names: str, history: tuple[str, ...] = ()) -> Shopper:
    state = shopper_of(*(sent("view", item=item, at=NOW - MINUTE_MS) for item in history))
    return replace(state, preferences=Preferences(favourite_categories=list(names)))


def listed(shopper: Shopper, table: ItemTable | None = None, categories: int = 10) -> list[str]:
    table = table or shop()
    shelf = Shelf.of(table, item_rows(table, ITEMS))
    prepared = prepare(shelf, model(), shopper, PageRequest(NOW))
    source = PopularSource(PopularParams(categories=categories))
    return [ITEMS[index] for index in source.consider(prepared.query).top(len(ITEMS)).indexes]


def leaves(items: list[str]) -> Counter[str]:
    return Counter(item.partition("-")[0] for item in items)


def test_a_stranger_gets_what_is_popular_in_her_favourites_the_first_ones_first() -> None:
    assert listed(wants()) == ITEMS, "nothing named: what is popular, no more"
    found = listed(wants("Rugs", "Lamps"))
    assert leaves(found[: 2 * EACH]) == {"Rugs": EACH, "Lamps": EACH}
    assert found[0] == "Rugs-0"
    assert found[2 * EACH :] == [item for item in ITEMS if not item.startswith(("Rugs", "Lamps"))]
    assert listed(wants("Lamps", "Rugs"))[0] == "Lamps-0"


def test_the_best_of_the_first_favourite_comes_first_however_unpopular() -> None:
    table = shop()
    for _ in range(1000):
        table.fold(event("purchase", item="Sofas-3", user="crowd", at=NOW), NOW)
    assert listed(wants(), table)[0] == "Sofas-3"
    found = listed(wants("Rugs"), table)
    assert found[0] == "Rugs-0"
    assert "Sofas-3" in found[: EACH + 1], "what is popular elsewhere stands beside it"
    for _ in range(20):
        table.fold(event("view", item="Rugs-0", user="crowd", at=NOW), NOW)
    table.fold(updated("Rugs-0", at=NOW, stock=0), NOW)
    assert listed(wants("Rugs"), table)[0] == "Rugs-1", "of what may be shown"


def test_a_category_above_the_leaves_means_all_below_it() -> None:
    assert leaves(listed(wants("Lamps", "Home"))[: 5 * EACH]).keys() == {"Lamps", "Sofas", "Vases", "Rugs", "Hooks"}
    table = shop()
    rows = item_rows(table, ITEMS)
    taste = favourite_taste(table, rows, ["Kitchen", "Knives", "Kitchen"])
    expected = {"Pans": FAVOURITE_WEIGHT, "Knives": FAVOURITE_WEIGHT}
    assert {leaf: taste[table.code(leaf)] for leaf in LEAVES} == {leaf: expected.get(leaf, 0) for leaf in LEAVES}
    later = favourite_taste(table, rows, ["Rugs", "Kitchen"])
    assert later[table.code("Pans")] == pytest.approx(FAVOURITE_WEIGHT * PLACE_DECAY)


@pytest.mark.parametrize("names", [(), ("Nothing",), ("",), ("Nothing",) * 100])
def test_names_that_nothing_has_change_nothing(names: tuple[str, ...]) -> None:
    assert not favourite_taste(shop(), item_rows(shop(), ITEMS), names).any()
    assert listed(wants(*names)) == ITEMS
    known = ("Sofas-1",)
    assert listed(wants(*names, history=known)) == listed(shopper_of(sent("view", item="Sofas-1", at=NOW - MINUTE_MS)))


def test_a_brand_is_no_category() -> None:
    table = table_of()
    table.fold(updated("mug", at=NOW, categories=["Kitchen"], brand="Acme", price_cents=1), NOW)
    assert not favourite_taste(table, item_rows(table, [ItemId("mug")]), ["Acme"]).any()


def test_favourites_stand_beside_what_she_did() -> None:
    found = listed(wants("Rugs", history=("Sofas-1",)))
    assert found[:EACH] == [f"Rugs-{number}" for number in range(EACH)], "it weighs like a purchase, a look does not"
    assert leaves(found[EACH : 2 * EACH]) == {"Sofas": EACH}
    assert found[2 * EACH] == "Pans-0"


def test_equal_favourites_do_not_depend_on_the_order_in_which_a_worker_met_the_categories() -> None:
    orders = [LEAVES, LEAVES[::-1], *list(permutations(LEAVES))[100:400:60]]
    lists = {tuple(listed(wants("Home", "Kitchen"), shop(order), categories=3)) for order in orders}
    assert len(lists) == 1
    assert leaves(list(lists.pop())[: 3 * EACH]).keys() == {"Lamps", "Sofas", "Vases"}


def test_who_does_not_wish_it_is_a_stranger_with_rules() -> None:
    known = shopper_of(sent("view", item="Sofas-1", at=NOW - MINUTE_MS))
    assert known.as_wished() is known
    wished = replace(known, preferences=Preferences(personalised=False, hidden_brands=["Rugs"]))
    stranger = wished.as_wished()
    assert stranger.state == shopper_of().state
    assert stranger.preferences == wished.preferences


def test_training_and_the_night_see_her_as_her_pages_do() -> None:
    users = UserShards()
    acts = [
        event("view", item="Sofas-1", user="ann", at=NOW - 2),
        event("view", item="Sofas-1", user="bob", at=NOW - 2),
    ]
    said = event("preferences_set", item=None, user="ann", at=NOW - 1, changes={"personalised": False})
    for sequence, one in enumerate([*acts, said]):
        users.fold(LoggedEvent("live-1", 0, sequence, NOW, one))
    assert users.shopper("bob", NOW).state != shopper_of().state
    assert users.shopper("ann", NOW).state == shopper_of().state
    assert users.shopper("ann", NOW).preferences == Preferences(personalised=False)


def test_an_empty_shop_has_no_favourites() -> None:
    table = table_of()
    assert favourite_taste(table, np.empty(0, np.int64), ["Kitchen"]).size == 0
