from __future__ import annotations

import random
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.catalog import CatalogEntry, Product, decode_entry
from shared.events import Event, ItemId, id_hash, to_ms
from shared.features.aggregations import DAY_MS, EXPIRES_AFTER_MS, HOUR_MS, NEVER
from shared.features.definitions import USER_LAYOUT
from shared.features.fold import ItemCounters, fold_item
from shared.features.items import CounterColumns, ItemTable, counters_dtype
from tests.unit.builders import MANY, MODEST, NOW, Sent, all_rows, event, histories, sent, table_of, updated

CHANGES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "title": st.sampled_from(["Cup", "Mug"]),
        "brand": st.sampled_from(["Acme", None]),
        "categories": st.sampled_from([[], ["Home"], ["Home", "Kitchen"]]),
        "price_cents": st.integers(0, 3),
        "stock": st.integers(0, 2),
        "hidden": st.booleans(),
        "arrived_at": st.sampled_from(["2023-11-14T00:00:00.001Z", "2022-02-03T04:05:06.789+02:00"]),
        "attributes": st.dictionaries(st.sampled_from(["colour", "size"]), st.sampled_from(["red", 1.0, True])),
    },
)
UPDATES = st.builds(
    lambda at, name, changes: updated("cup", at=NOW + at, event_id=name, **changes),
    st.integers(0, 2),
    st.sampled_from(["one", "two"]),
    CHANGES,
)


def entry_of(events: list[Event]) -> CatalogEntry:
    entry = CatalogEntry(item_id=ItemId("cup"))
    for one in events:
        entry.apply(one, NOW + 1)
    return entry


@MANY
@given(st.lists(UPDATES, max_size=6), st.lists(UPDATES, max_size=6), st.randoms(use_true_random=False))
def test_the_catalogue_fold_merges_in_any_order_and_any_number_of_times(
    left: list[Event], right: list[Event], random: random.Random
) -> None:
    whole = entry_of(left + right).encode()
    shuffled = [*left, *right, *left]
    random.shuffle(shuffled)
    assert entry_of(shuffled).encode() == whole
    one, two = entry_of(left), entry_of(right)
    one.merge(two)
    one.merge(two)
    one.merge(decode_entry(one.encode()))
    assert one.encode() == whole
    two.merge(entry_of(left))
    assert two.encode() == whole
    assert decode_entry(whole).encode() == whole
    assert decode_entry(whole).product() == one.product()


@MANY
@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001 - made aware in the next line
def test_an_arrival_is_the_instant_that_was_said(moment: datetime) -> None:
    text = f"{moment.isoformat(timespec='microseconds')}Z"
    product = entry_of([updated("cup", arrived_at=text)]).product()
    assert product.arrived_at == to_ms(datetime.fromisoformat(text))


def test_each_field_is_the_newest_that_was_said_of_it() -> None:
    table = table_of(
        updated("cup", at=NOW, title="Cup", price_cents=500, categories=["Home", "Kitchen"], stock=3),
        updated("cup", at=NOW + 2, price_cents=700),
        updated("cup", at=NOW + 1, price_cents=600, title="Red cup", brand="Acme"),
    )
    row = table.row_of_id("cup")
    assert row == 0
    assert table.products[0] == Product(
        item_id=ItemId("cup"), title="Red cup", price_cents=700, categories=("Home", "Kitchen"), stock=3, brand="Acme"
    )
    assert table.products[0].category == "Kitchen"
    assert (table.price_cents[0], table.stock[0], table.available[0], table.arrived_at[0]) == (700, 3, True, NEVER)
    assert (table.category[0], table.brand[0]) == (table.code("Kitchen"), table.code("Acme"))
    for name, inside in (("Home", True), ("Kitchen", True), ("Garden", False), ("Acme", False), ("", False)):
        assert table.in_category(name, np.array([0])).tolist() == [inside]


def test_what_is_hidden_or_sold_out_is_not_available() -> None:
    table = table_of(
        updated("shown", title="x"), updated("hidden", hidden=True), updated("gone", stock=0), updated("few", stock=1)
    )
    assert table.available[all_rows(table)].tolist() == [True, False, False, True]
    table.fold(event("view", item="nameless"), NOW)
    assert not table.available[len(table) - 1]
    assert table.row_of_id("nameless") is None
    assert table.row_of_id("unheard") is None
    assert len(table) == 5


def assert_same_counters(left: ItemTable, right: ItemTable, as_of: int) -> None:
    for item_hash, row in left.row_of.items():
        mine, theirs = np.array([row]), np.array([right.row_of[item_hash]])
        np.testing.assert_array_equal(left.counters.counts_at(mine, as_of), right.counters.counts_at(theirs, as_of))
        np.testing.assert_allclose(
            left.counters.decayed_at(mine, as_of), right.counters.decayed_at(theirs, as_of), rtol=1e-9, atol=1e-12
        )
        assert left.counters.newest_at[row] == right.counters.newest_at[theirs[0]]
        assert left.counters.last_enqueued_at[row] == right.counters.last_enqueued_at[theirs[0]]


def shards_of(history: list[Sent], parts: int) -> list[dict[int, bytes]]:
    shards: list[dict[int, ItemCounters]] = [{} for _ in range(parts)]
    for number, one in enumerate(history):
        item = id_hash(str(one.event.item_id))
        fold_item(shards[number % parts].setdefault(item, ItemCounters.empty()), one.event, one.enqueued_at)
    return [{item: counters.encode() for item, counters in shard.items()} for shard in shards]


def pass_over(history: list[Sent]) -> ItemTable:
    table = ItemTable()
    for one in history:
        table.fold(one.event, one.enqueued_at)
    return table


@MODEST
@given(histories(), st.integers(1, 4), st.integers(0, 3))
def test_parts_merged_in_memory_are_one_pass_over_the_log(history: list[Sent], parts: int, reloaded: int) -> None:
    clean, table = pass_over(history), ItemTable()
    shards = shards_of(history, parts)
    half = shards_of(history[: len(history) // 2], parts)
    for part, shard in enumerate(half):
        table.load_part(("live-1", part), shard)
    assert_same_counters(table, pass_over(history[: len(history) // 2]), NOW)
    for part, shard in enumerate(shards):
        table.load_part(("live-1", part), shard)
    assert_same_counters(clean, table, NOW)
    table.clear_part(("live-1", reloaded))
    assert_same_counters(table, without(history, parts, reloaded, table), NOW)
    table.load_part(("live-1", reloaded % parts), shards[reloaded % parts])
    assert_same_counters(clean, table, NOW + HOUR_MS)


def without(history: list[Sent], parts: int, left_out: int, like: ItemTable) -> ItemTable:
    rest = pass_over([one for number, one in enumerate(history) if number % parts != left_out])
    for item_hash in like.row_of:
        rest.row(item_hash)
    return rest


def test_parts_whose_clocks_stand_before_1970_do_not_grow() -> None:
    broken = [sent("view", item="cup", at=-62_135_596_800_000, enqueued_at=NOW)]
    table = ItemTable()
    table.load_part(("live-1", 0), shards_of(broken, 1)[0])
    table.load_part(("live-1", 1), shards_of([sent("view", item="mug")], 1)[0])
    assert table.counters.decayed[table.row_of[id_hash("cup")]].max() == 1.0
    assert not table.block(np.array([0]), NOW).decayed.any()


def test_growth_beyond_the_first_thousand_rows_keeps_every_column() -> None:
    table = ItemTable()
    table.load_part(("live-1", 0), shards_of([sent("purchase", item="i0")], 1)[0])
    for number in range(2500):
        table.fold(updated(f"i{number}", price_cents=number, stock=number, categories=[f"c{number % 7}"]), NOW)
    table.load_part(("live-1", 1), shards_of([sent("view", item=f"i{number}") for number in range(2600)], 1)[0])
    rows = all_rows(table)
    assert len(table) == 2600
    assert table.price_cents[rows[:2500]].tolist() == list(range(2500))
    assert table.stock[2499] == 2499
    assert np.isnan(table.stock[2500:2600]).all()
    assert table.category[rows[:2500]].tolist() == [table.code(f"c{number % 7}") for number in range(2500)]
    assert table.counters.counts[:2600].sum(axis=1).tolist() == [2] + [1] * 2599
    assert not table.available[2500:].any()
    assert (table.paths[2500:] == -1).all()


def test_the_version_moves_with_every_change() -> None:
    table, seen = ItemTable(), set()
    steps = [
        lambda: table.fold(updated("cup"), NOW),
        lambda: table.fold(event("view", item="cup"), NOW),
        lambda: table.load_part(("live-1", 0), {}),
        lambda: table.offer(CatalogEntry(item_id=ItemId("mug"))),
        lambda: table.clear_part(("live-1", 0)),
    ]
    for step in steps:
        step()
        seen.add(table.version)
    assert len(seen) == len(steps)
    table.fold(event("preferences_set", item=None), NOW)
    table.clear_part(("other", 0))
    assert table.version in seen


def test_the_version_of_products_moves_with_products_alone() -> None:
    table = table_of(updated("cup", stock=1, at=NOW))
    versions = [table.products_version]
    table.fold(event("view", item="cup"), NOW)
    table.load_part(("live-1", 0), {}, [CatalogEntry(item_id=ItemId("cup"), fields=dict(table.entry(0).fields))])
    table.offer(CatalogEntry(item_id=ItemId("cup")))
    assert table.products_version == versions[0]
    for later, stock in enumerate((2, 1), start=1):
        table.fold(updated("cup", stock=stock, at=NOW + later), NOW + later)
        versions.append(table.products_version)
    assert len(set(versions)) == 3
    assert table.stock[0] == 1


def test_an_idle_item_reads_as_empty_and_other_rows_do_not_notice() -> None:
    table = pass_over([sent("view", item="idle", at=NOW - DAY_MS), sent("view", item="busy")])
    block = table.block(all_rows(table), NOW - DAY_MS + EXPIRES_AFTER_MS + 1)
    assert block.counts.sum(axis=1).tolist() == [0, 1]
    assert table.counters.counts.sum() == 2


def test_only_layouts_of_fixed_size_become_columns() -> None:
    with pytest.raises(ValueError, match="fixed size"):
        counters_dtype(USER_LAYOUT)
    assert CounterColumns().layout is not USER_LAYOUT


def test_the_rows_whose_product_was_set_since_a_version_are_told() -> None:
    table = ItemTable()
    for number in range(3):
        table.offer(CatalogEntry(item_id=ItemId(f"i{number}"), fields={"title": (1, 1, "old")}))
    assert table.products_since(0).tolist() == [0, 1, 2]
    before = table.products_version
    table.offer(CatalogEntry(item_id=ItemId("i1"), fields={"stock": (2, 2, 0)}))
    table.load_part(("live", 0), {})
    assert table.products_since(before).tolist() == [1]
    assert table.products_since(table.products_version).tolist() == []


def test_names_of_categories_and_brands_have_codes_and_back() -> None:
    table = ItemTable()
    fields = {"categories": (1, 1, ["Home", "Kitchen"]), "brand": (1, 1, "Home")}
    table.offer(CatalogEntry(item_id=ItemId("i"), fields=fields))
    assert [table.name(table.code(name)) for name in ("Home", "Kitchen")] == ["Home", "Kitchen"]
    assert table.code("Garden") == -1
