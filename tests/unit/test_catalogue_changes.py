"""Random writes of the catalogue, as the API makes them: any order and any cut of the log end in the same product."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from functions.api.catalogue_models import BatchEntry, ItemPatch, WholeItem
from shared.catalog import Product, decode_entry
from shared.events import Event, ItemId, encode_event, event_hash, id_hash
from shared.features.items import ItemTable
from shared.ingest.fold_chunk import fold_chunk, fresh_entry, touched_by
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord, Mark, PartitionState, VersionShards
from tests.unit.builders import MANY, NOW, updated

RESET: dict[str, Any] = {
    "title": "", "description": "", "categories": [], "brand": None, "price_cents": 0, "stock": None, "hidden": False,
    "deleted": False, "attributes": {},
}  # fmt: skip
"""What a product is before anything is said of it."""
SAID: dict[str, st.SearchStrategy[Any]] = {
    "title": st.sampled_from(["Cup", "Mug", "\N{CLINKING BEER MUGS}"]),
    "price_cents": st.integers(0, 3),
    "description": st.sampled_from(["", "Good."]),
    "categories": st.sampled_from([[], ["Home"], ["Home", "Kitchen"]]),
    "brand": st.sampled_from([None, "Acme"]),
    "stock": st.sampled_from([None, 0, 1, 2]),
    "hidden": st.booleans(),
    "arrived_at": st.sampled_from(["2023-11-14T00:00:00.001Z", "2022-02-03T04:05:06.789+02:00"]),
    "attributes": st.dictionaries(st.sampled_from(["colour", "size"]), st.sampled_from(["red", 1.5, True])),
}
WHOLE = st.fixed_dictionaries(
    {name: SAID[name] for name in ("title", "price_cents")},
    optional={name: said for name, said in SAID.items() if name not in {"title", "price_cents"}},
).map(lambda said: WholeItem.model_validate(said).fields())
PATCH = st.fixed_dictionaries({}, optional=SAID).filter(bool).map(lambda said: ItemPatch.model_validate(said).fields())
DELETE = st.just({"deleted": True})
WRITES = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 6), st.one_of(WHOLE, PATCH, DELETE)), min_size=1, max_size=12
)


def events_of(drawn: list[tuple[str, int, dict[str, Any]]]) -> list[Event]:
    """Of some instants there are several; what was sent has happened before the broker took it."""
    return [
        updated(item, at=NOW - 10 + at, event_id=f"write-{number}", **fields)
        for number, (item, at, fields) in enumerate(drawn)
    ]


def folded(events: Sequence[Event], cuts: set[int]) -> dict[int, bytes]:
    """The entries after the log of these events, cut before each of `cuts`."""
    products: dict[int, bytes] = {}
    mark: Mark | None = None
    start = 0
    for end in sorted({*(cut for cut in cuts if cut < len(events)), len(events)}):
        records = [
            LogRecord("live-1", 0, number, NOW + number, encode_event(events[number])) for number in range(start, end)
        ]
        if not records:
            continue
        entries = [fresh_entry(record) for record in records]
        touched = touched_by(entries)
        shards = VersionShards(mark, {}, {})
        held = {one: products.get(one) for one in touched.products}
        state = PartitionState(mark, {CURRENT_VERSION.name: shards}, held)
        commit = fold_chunk(entries, state, [CURRENT_VERSION], with_log=True)
        assert commit.log is not None
        products |= commit.log.products
        mark, start = commit.mark_after, end
    return products


def expected(events: list[Event], item: str) -> Product:
    """Told field by field: the newest of those that name it, ties by event id."""
    own = [event for event in events if event.item_id == item]
    entry_less: dict[str, Any] = {}
    for name in (*RESET, "arrived_at"):
        naming = [event for event in own if name in (event.changes or {})]
        if naming:
            newest = max(naming, key=lambda event: (event.occurred_at_ms, event_hash(event.event_id)))
            entry_less[name] = newest.changes[name]  # type: ignore[index]  # it names the field
    table = ItemTable()
    table.fold(updated(item, at=NOW, **entry_less), NOW)
    return table.products[0]


@MANY
@given(WRITES, st.randoms(use_true_random=False), st.sets(st.integers(0, 12)))
def test_any_order_and_any_cut_end_in_the_same_product(
    drawn: list[tuple[str, int, dict[str, Any]]], draw: random.Random, cuts: set[int]
) -> None:
    events = events_of(drawn)
    whole = folded(events, set())
    shuffled = [*events, *events[:2]]
    draw.shuffle(shuffled)
    assert folded(shuffled, cuts) == whole
    table = ItemTable()
    for name, data in whole.items():
        table.load_part(("live-1", 0), {}, [decode_entry(data)])
        product = table.products[table.row_of[name]]
        assert product == expected(events, product.item_id)
        found = table.row_of_id(product.item_id)
        assert (found is None) == product.deleted
        assert bool(table.available[table.row_of[name]]) == (
            not product.deleted and not product.hidden and product.stock != 0
        )


@MANY
@given(WHOLE)
def test_a_put_says_every_field_so_that_nothing_of_before_is_left(fields: dict[str, Any]) -> None:
    assert set(fields) - {"arrived_at"} == set(RESET)
    everything: dict[str, Any] = {
        "title": "Old", "description": "Old", "categories": ["Old"], "brand": "Old", "price_cents": 9, "stock": 9,
        "hidden": True, "deleted": True, "attributes": {"old": True},
    }  # fmt: skip
    after, fresh = ItemTable(), ItemTable()
    after.fold(updated("a", at=NOW - 1, **everything), NOW)
    for table in (after, fresh):
        table.fold(updated("a", at=NOW, **fields), NOW)
    assert after.products[0] == fresh.products[0]


def test_reset_is_what_a_product_is_by_default() -> None:
    table = ItemTable()
    table.fold(updated("a", at=NOW, **RESET), NOW)
    assert table.products[0] == Product(item_id=ItemId("a"))
    assert set(RESET) | {"item_id", "arrived_at"} == set(Product.__struct_fields__)
    assert table.row_of[id_hash("a")] == 0


def test_a_patch_says_what_was_sent_and_nothing_else() -> None:
    assert ItemPatch(stock=None).fields() == {"stock": None}
    entry = BatchEntry(item_id="a", deleted=True, occurred_at="2026-01-01T00:00:00Z")
    assert entry.fields() == {"deleted": True}
    with pytest.raises(ValidationError, match="at least one"):
        BatchEntry(item_id="a", occurred_at="2026-01-01T00:00:00Z")


@pytest.mark.parametrize("model", [ItemPatch, BatchEntry])
def test_the_document_of_a_patch_names_no_defaults(model: type[ItemPatch]) -> None:
    schema = model.model_json_schema()
    assert not any("default" in said for said in schema["properties"].values())
    assert schema["minProperties"] == 1 + len(schema.get("required", ()))
