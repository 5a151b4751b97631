"""The back office's writes: each an event, acknowledged, folded, and known to every worker; nothing else gets in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from functions.api.catalogue_models import ItemsTaken, ItemWritten
from functions.api.models import Item
from local.embedded import EmbeddedServers
from shared.events import EventType, decode_event
from tests.integration.api_shop import ApiShop, ids, item_id, item_update, open_shop, problem_of

LAMP = {
    "title": "Brass lamp",
    "description": "It shines.",
    "categories": ["Shop", "Category 3"],
    "brand": "Brand 1",
    "price_cents": 4500,
    "stock": 4,
    "attributes": {"colour": "brass", "height": 31.5, "indoor": True},
}


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


def send(shop: ApiShop, method: str, path: str, **request: Any) -> Any:
    answer = shop.client.request(method, path, **request)
    assert answer.status_code == 202, answer.text
    return answer.json()


def product(shop: ApiShop, item: str = "lamp") -> Item:
    shop.settle()
    return Item.model_validate(shop.get(f"/items/{item}"))


def test_a_put_is_one_event_and_the_item_is_there_once_it_is_folded(shop: ApiShop) -> None:
    before = sum(shop.positions.values())
    told = ItemWritten.model_validate(send(shop, "PUT", "/items/lamp", json=LAMP))
    problem_of(shop.client.get("/items/lamp"), 404)
    found = product(shop)
    assert sum(shop.positions.values()) == before + 1
    assert (found.title, found.price_cents, found.stock, found.brand) == ("Brass lamp", 4500, 4, "Brand 1")
    assert found.attributes == LAMP["attributes"]
    assert found.arrived_at == told.occurred_at
    assert found.available


def test_the_event_carries_the_key_and_the_instant_of_the_back_office(shop: ApiShop) -> None:
    at = "2026-01-02T03:04:05.678Z"
    told = send(
        shop, "PATCH", f"/items/{item_id(3)}", json={"stock": 1}, params={"occurred_at": at},
        headers={"Idempotency-Key": "erp-17"},
    )  # fmt: skip
    assert told == {"item_id": item_id(3), "event_id": "erp-17", "occurred_at": at}
    bodies = [
        decode_event(record.body)
        for partition in range(shop.settings.partition_count)
        for record in shop.broker.read(partition, shop.positions[partition], 10)
    ]
    assert [(one.event_id, one.event_type, one.item_id, one.changes) for one in bodies] == [
        ("erp-17", EventType.ITEM_UPDATED, item_id(3), {"stock": 1})
    ]


def test_a_put_resets_what_it_leaves_out_and_a_patch_does_not(shop: ApiShop) -> None:
    send(shop, "PUT", "/items/lamp", json=LAMP)
    first = product(shop)
    send(shop, "PATCH", "/items/lamp", json={"stock": 0, "price_cents": 4000})
    patched = product(shop)
    assert patched == first.model_copy(update={"stock": 0, "price_cents": 4000, "available": False})
    send(shop, "PUT", "/items/lamp", json={"title": "Lamp", "price_cents": 1})
    reset = product(shop)
    assert reset == Item(
        item_id="lamp", title="Lamp", description="", categories=[], category="", brand=None, price_cents=1,
        stock=None, hidden=False, available=True, arrived_at=first.arrived_at, attributes={},
    )  # fmt: skip
    send(shop, "PATCH", "/items/lamp", json={"stock": 7, "brand": "Acme"})
    send(shop, "PATCH", "/items/lamp", json={"stock": None, "brand": None})
    assert product(shop) == reset


def test_writes_one_after_the_other_count_in_that_order_before_anything_is_folded(shop: ApiShop) -> None:
    shop.clock.at = int(datetime.now(UTC).timestamp() * 1000)  # they all come within one millisecond
    send(shop, "PUT", "/items/lamp", json=LAMP)
    for price in range(20):
        send(shop, "PATCH", "/items/lamp", json={"price_cents": price})
    send(shop, "PATCH", "/items/lamp", json={"stock": 9})
    found = product(shop)
    assert (found.price_cents, found.stock, found.title) == (19, 9, "Brass lamp")


def test_what_comes_late_or_out_of_order_counts_at_its_own_instant(shop: ApiShop) -> None:
    now = datetime.now(UTC)
    for minutes, stock in ((10, 10), (30, 30), (20, 20)):
        at = (now - timedelta(minutes=minutes)).isoformat()
        send(shop, "PATCH", f"/items/{item_id(3)}", json={"stock": stock}, params={"occurred_at": at})
    shop.clock.at = int(now.timestamp() * 1000)
    assert product(shop, item_id(3)).stock == 10


def test_a_deleted_item_is_gone_until_it_is_put(shop: ApiShop) -> None:
    send(shop, "PUT", "/items/lamp", json=LAMP)
    arrived_at = product(shop).arrived_at
    shop.click("ann", 60)
    send(shop, "DELETE", "/items/lamp")
    shop.settle()
    problem_of(shop.client.get("/items/lamp"), 404)
    problem_of(shop.client.get("/similar_items/lamp"), 404)
    problem_of(shop.client.get("/recommend/ann", params={"context_item": "lamp"}), 404)
    send(shop, "PATCH", "/items/lamp", json={"stock": 5})
    shop.settle()
    problem_of(shop.client.get("/items/lamp"), 404)
    send(shop, "PUT", "/items/lamp", json=LAMP)
    again = product(shop)
    assert (again.available, again.arrived_at) == (True, arrived_at)
    send(shop, "DELETE", "/items/lamp")
    send(shop, "PUT", "/items/lamp", json=LAMP)
    assert product(shop).available


def test_deleting_twice_or_what_never_was_is_no_error(shop: ApiShop) -> None:
    send(shop, "DELETE", "/items/never")
    send(shop, "DELETE", "/items/never")
    shop.settle()
    problem_of(shop.client.get("/items/never"), 404)


def test_a_patch_that_comes_before_its_item_waits_for_it_unseen(shop: ApiShop) -> None:
    send(shop, "PATCH", "/items/lamp", json={"stock": 2, "price_cents": 10, "categories": ["Shop", "Category 3"]})
    shop.settle()
    assert "lamp" not in ids(shop.get("/recommend/ann", limit=100))
    assert "lamp" not in ids(shop.get("/popular", category="Category 3", limit=100))
    assert "lamp" not in ids(shop.get("/items", category="Category 3"))
    send(shop, "PUT", "/items/lamp", json={**LAMP, "stock": 3})
    found = product(shop)
    assert found.stock == 3
    assert found.arrived_at is not None


def test_an_item_of_the_release_keeps_its_arrival_and_a_new_one_may_name_its_own(shop: ApiShop) -> None:
    before = product(shop, item_id(3)).arrived_at
    send(shop, "PUT", f"/items/{item_id(3)}", json=LAMP)
    assert product(shop, item_id(3)).arrived_at == before
    send(shop, "PUT", "/items/lamp", json={**LAMP, "arrived_at": "2026-05-06T07:08:09.123+02:00"})
    assert product(shop).arrived_at == "2026-05-06T05:08:09.123Z"
    late = (datetime.now(UTC) - timedelta(hours=5)).isoformat()
    told = send(shop, "PUT", "/items/late", json=LAMP, params={"occurred_at": late})
    assert product(shop, "late").arrived_at == told["occurred_at"]


def test_a_batch_has_an_outcome_for_each_item(shop: ApiShop) -> None:
    entries = [
        {"item_id": "lamp", **LAMP},
        {"item_id": item_id(3), "stock": 0},
        {"item_id": item_id(4), "stock": "5"},
        {"item_id": item_id(5), "price_cents": 777, "occurred_at": "yesterday"},
        {"item_id": item_id(6)},
        {"item_id": "no/slash", "stock": 1},
        {"stock": 1},
        17,
        {"item_id": item_id(9), "stock": 1, "colour": "red"},
        {"item_id": item_id(3), "stock": 9},
        {"item_id": item_id(10), "deleted": True},
    ]
    answer = send(shop, "POST", "/items:batch", json={"items": entries}, headers={"Idempotency-Key": "load-1"})
    told = ItemsTaken.model_validate(answer)
    assert [one.outcome == "accepted" for one in told.outcomes] == [True, True, *[False] * 8, True]
    assert [one.item_id for one in told.outcomes[:4]] == ["lamp", item_id(3), item_id(4), item_id(5)]
    assert [one.event_id for one in told.outcomes[:3]] == ["load-1.0", "load-1.1", None]
    assert (told.accepted, told.rejected) == (3, 8)
    reasons = [one.reason or "" for one in told.outcomes]
    for index, word in {
        2: "stock",
        3: "occurred_at",
        4: "at least one",
        5: "item_id",
        6: "item_id",
        8: "colour",
        9: "entry 1",
    }.items():
        assert word in reasons[index]
    assert product(shop).stock == 4
    assert product(shop, item_id(3)).stock == 0
    problem_of(shop.client.get(f"/items/{item_id(10)}"), 404)
    send(shop, "POST", "/items:batch", json={"items": [{"item_id": item_id(10), "deleted": False}]})
    assert product(shop, item_id(10)).title == "Product 10"


def test_two_entries_of_one_item_count_by_their_instants(shop: ApiShop) -> None:
    at = [(datetime.now(UTC) - timedelta(minutes=one)).isoformat() for one in (1, 2)]
    entries = [{"item_id": "lamp", **LAMP, "stock": stock, "occurred_at": one} for stock, one in enumerate(at, 1)]
    assert send(shop, "POST", "/items:batch", json={"items": entries})["accepted"] == 2
    assert product(shop).stock == 1


def test_a_thousand_items_at_once_and_not_one_more(shop: ApiShop) -> None:
    entries = [{"item_id": f"bulk-{number}", **LAMP} for number in range(1000)]
    assert send(shop, "POST", "/items:batch", json={"items": entries})["accepted"] == 1000
    shop.settle()
    assert shop.get("/items", category="Category 3")["total"] == 1020
    problem_of(shop.client.post("/items:batch", json={"items": [*entries, {"item_id": "more", "stock": 1}]}), 422)


def test_an_event_of_before_the_api_had_writes_still_counts(shop: ApiShop) -> None:
    shop.post(item_update(3, stock=0))
    assert product(shop, item_id(3)).stock == 0
