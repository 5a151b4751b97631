"""Writes that are wrong, too much, out of order or in bad times: refused with the reason, or the same in the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis

from local.embedded import EmbeddedServers
from shared.adapters.keys import PartitionKeys
from shared.events import partition_of
from tests.integration.api_shop import ApiShop, item_id, open_shop, problem_of

LAMP: dict[str, Any] = {"title": "Brass lamp", "price_cents": 4500}
BEER = "\N{CLINKING BEER MUGS}"
NONSENSE: dict[str, dict[str, Any]] = {
    "no title": {"price_cents": 1},
    "no price": {"title": "Lamp"},
    "an empty title": {**LAMP, "title": ""},
    "a number as title": {**LAMP, "title": 5},
    "a price as text": {**LAMP, "price_cents": "4500"},
    "half a cent": {**LAMP, "price_cents": 1.5},
    "a yes as price": {**LAMP, "price_cents": True},
    "less than nothing": {**LAMP, "price_cents": -1},
    "more than there is": {**LAMP, "price_cents": 10**12},
    "endless digits": {**LAMP, "price_cents": 10**400},
    "negative stock": {**LAMP, "stock": -1},
    "a maybe": {**LAMP, "hidden": "yes"},
    "null hidden": {**LAMP, "hidden": None},
    "categories as text": {**LAMP, "categories": "Home"},
    "an empty category": {**LAMP, "categories": [""]},
    "too deep": {**LAMP, "categories": ["a"] * 11},
    "an unknown field": {**LAMP, "colour": "red"},
    "the item's id in the body": {**LAMP, "item_id": "other"},
    "deleted in the body": {**LAMP, "deleted": True},
    "a list among attributes": {**LAMP, "attributes": {"a": [1]}},
    "nothing among attributes": {**LAMP, "attributes": {"a": None}},
    "endless attributes": {**LAMP, "attributes": {f"k{number}": 1 for number in range(51)}},
    "an arrival without a zone": {**LAMP, "arrived_at": "2026-01-01T00:00:00"},
    "an arrival as number": {**LAMP, "arrived_at": 1_700_000_000},
    "an arrival before time": {**LAMP, "arrived_at": "0001-01-01T00:00:00Z"},
    "half a surrogate": {**LAMP, "title": "\ud800"},
}  # fmt: skip
RAW = {
    "nothing": b"", "no JSON": b"{", "a list": b"[]", "a text": b'"lamp"', "null": b"null", "no UTF-8": b"\xff\xfe",
    "infinite": b'{"title": "a", "price_cents": 1, "attributes": {"a": Infinity}}',
    "no number": b'{"title": "a", "price_cents": 1, "attributes": {"a": NaN}}',
    "overflowing": b'{"title": "a", "price_cents": 1, "attributes": {"a": 1e400}}',
    "a deep one": b'{"title": "a", "price_cents": 1, "attributes": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
    "long digits": b'{"title": "a", "price_cents": ' + b"9" * 5000 + b"}",
}  # fmt: skip

JSON = {"content-type": "application/json"}
BATCH_TAKES = {"no title", "no price", "deleted in the body", "the item's id in the body", "half a surrogate"}
"""What a batch understands, or, the last of them, takes for no JSON."""


@pytest.fixture
def bare(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    """Without a release: writing needs none."""
    with open_shop(servers.state_url, servers.log_url, tmp_path, stocked=False) as opened:
        yield opened


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


def logged(shop: ApiShop) -> int:
    """Events in the broker log that no one has folded yet."""
    return sum(
        len(shop.broker.read(partition, shop.positions.get(partition, -1), 5000))
        for partition in range(shop.settings.partition_count)
    )


def text_of(body: Any) -> str:
    return json.dumps(body)


def test_nonsense_is_refused_by_every_way_in_and_leaves_no_trace(bare: ApiShop) -> None:
    for what, body in NONSENSE.items():
        content = text_of(body)
        problem = problem_of(bare.client.put("/items/lamp", content=content, headers=JSON), 422)
        assert problem["type"].startswith("urn:recommndr:problem:invalid_"), what
        if what not in {"no title", "no price"}:
            problem_of(bare.client.patch("/items/lamp", content=content, headers=JSON), 422)
        if what not in BATCH_TAKES:
            entry = text_of({"item_id": "lamp", **body})
            problem = problem_of(bare.client.post("/items:batch", content=f'{{"items": [{entry}]}}'), 422)
            assert problem["outcomes"][0]["reason"], what
            assert len(problem["outcomes"][0]["reason"]) <= 500
    problem_of(bare.client.patch("/items/lamp", json={}), 422)
    assert logged(bare) == 0


def test_bodies_that_are_none_are_refused(bare: ApiShop) -> None:
    for what, content in RAW.items():
        for method, path in (("PUT", "/items/lamp"), ("PATCH", "/items/lamp"), ("POST", "/items:batch")):
            answer = bare.client.request(method, path, content=content, headers=JSON)
            assert answer.status_code in {400, 422}, (what, method, answer.text)
            problem_of(answer, answer.status_code)
        batch = b'{"items": [' + content + b"]}"
        answer = bare.client.post("/items:batch", content=batch)
        assert answer.status_code in {400, 422}, (what, answer.text)
    for items in ([], [{"item_id": f"i{number}", "stock": 1} for number in range(1001)], {"item_id": "a"}, None):
        problem_of(bare.client.post("/items:batch", json={"items": items}), 422)
    problem_of(bare.client.post("/items:batch", json=[{"item_id": "a", "stock": 1}]), 422)
    assert logged(bare) == 0


MADE_UP: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"occurred_at": "yesterday"}, {}), ({"occurred_at": "2026-01-01T00:00:00"}, {}), ({"occurred_at": ""}, {}),
    ({"occurred_at": "1700000000"}, {}), ({"occurred_at": "0001-01-01T00:00:00+23:59"}, {}),
    ({"occurred_at": "9999-12-31T23:59:59-23:59"}, {}),
    ({"occurred_at": (datetime.now(UTC) + timedelta(hours=25)).isoformat()}, {}),
    ({}, {"Idempotency-Key": ""}), ({}, {"Idempotency-Key": "a/b"}), ({}, {"Idempotency-Key": "k" * 121}),
]  # fmt: skip


def test_instants_and_keys_that_make_no_sense_are_refused(bare: ApiShop) -> None:
    for params, headers in MADE_UP:
        for method, body in (("PUT", LAMP), ("PATCH", {"stock": 1}), ("DELETE", None)):
            answer = bare.client.request(method, "/items/lamp", json=body, params=params, headers=headers)
            problem_of(answer, 422)
    assert logged(bare) == 0


def test_a_product_too_large_for_an_event_is_refused_with_its_size(shop: ApiShop) -> None:
    large = {**LAMP, "attributes": {f"k{number}": "v" * 1000 for number in range(50)}}
    assert "32768" in problem_of(shop.client.put("/items/lamp", json=large), 422)["detail"]
    wide = {**LAMP, "title": BEER * 4000, "description": BEER * 4000, "attributes": {"k": "v" * 2000}}
    assert "32768" in problem_of(shop.client.put("/items/lamp", json=wide), 422)["detail"]
    entries = [{"item_id": "small", "stock": 1}, {"item_id": "lamp", **wide}]
    told = shop.client.post("/items:batch", json={"items": entries}).json()
    assert [one["outcome"] for one in told["outcomes"]] == ["accepted", "rejected"]
    assert "32768" in told["outcomes"][1]["reason"]
    assert logged(shop) == 1
    shop.settle()
    fits = {**LAMP, "title": BEER * 4000, "description": BEER * 3900}
    assert shop.client.put("/items/lamp", json=fits).status_code == 202
    shop.settle()
    assert shop.get("/items/lamp")["title"] == BEER * 4000


ANY_ID = (BEER, "a b", "a?b=c&d#e%2", "Stra\u00dfe", "\u65e5\u672c", "a+b", "'; DROP", "null", "items", "x:batch")


def test_ids_of_all_kinds_are_written_read_and_deleted(shop: ApiShop) -> None:
    for item in ANY_ID:
        address = f"/items/{quote(item, safe='')}"
        assert shop.client.put(address, json=LAMP).json()["item_id"] == item
        told = shop.client.post("/items:batch", json={"items": [{"item_id": item, "stock": 3}]})
        assert told.json()["outcomes"][0]["item_id"] == item
        shop.settle()
        found = shop.get(address)
        assert (found["item_id"], found["stock"], found["title"]) == (item, 3, "Brass lamp")
        assert shop.client.delete(address).status_code == 202
        shop.settle()
        problem_of(shop.client.get(address), 404)


def test_ids_that_no_address_can_carry_are_refused(bare: ApiShop) -> None:
    for item in ("..", ".", "{item_id}", "a" * 129, "\ufffd"):
        told = problem_of(bare.client.post("/items:batch", json={"items": [{"item_id": item, "stock": 3}]}), 422)
        assert "item_id" in told["outcomes"][0]["reason"]
        answer = bare.client.put(f"/items/{quote(item, safe='')}", json=LAMP)
        assert answer.status_code in {404, 405, 422}
    assert logged(bare) == 0


def test_without_redis_writes_are_taken_and_without_the_broker_log_none(tmp_path: Path) -> None:
    with (
        EmbeddedServers(tmp_path / "servers") as own,
        open_shop(
            own.state_url, own.log_url, tmp_path / "blobs", REDIS_TIMEOUT_MS="250", EVENT_LOG_TIMEOUT_MS="500"
        ) as shop,
    ):
        assert own.state is not None
        assert own.log is not None
        own.state.kill()
        assert shop.client.put("/items/lamp", json=LAMP).status_code == 202
        own.log.kill()
        for method, body in (("PUT", LAMP), ("PATCH", {"stock": 1}), ("DELETE", None)):
            answer = shop.client.request(method, "/items/lamp", json=body)
            assert problem_of(answer, 503)["type"].endswith("broker_log_unavailable")
            assert answer.headers["retry-after"]
        entries = [{"item_id": "a", "stock": 1}, {"item_id": "b", "stock": "1"}]
        problem_of(shop.client.post("/items:batch", json={"items": entries}), 503)
        own.state.start()
        own.log.start()
        shop.seconds.ahead += 60
        shop.settle()
        assert shop.get("/items/lamp")["title"] == "Brass lamp"


def test_what_only_a_part_of_the_broker_log_takes_is_told_item_by_item(shop: ApiShop, log_client: Redis) -> None:
    items = [item_id(index) for index in range(40)]
    broken = partition_of(items[0], shop.settings.partition_count)
    key = PartitionKeys("live-1", broken).broker_log
    log_client.rename(key, f"{key}-aside")
    log_client.set(key, "no stream")
    entries: list[dict[str, Any]] = [{"item_id": item, "stock": 3} for item in items]
    told = problem_of(shop.client.post("/items:batch", json={"items": [*entries, {"item_id": "x"}]}), 503)
    assert told["type"].endswith(":partly_acknowledged")
    lost = [partition_of(item, shop.settings.partition_count) == broken for item in items]
    expected = ["unacknowledged" if one else "accepted" for one in lost]
    assert [one["outcome"] for one in told["outcomes"]] == [*expected, "rejected"]
    assert (told["accepted"], told["rejected"], told["unacknowledged"]) == (40 - sum(lost), 1, sum(lost))
    assert all(one["event_id"] for one in told["outcomes"][:40])
    problem_of(shop.client.patch(f"/items/{items[0]}", json={"stock": 1}), 503)


def test_the_same_write_sent_again_is_the_same_write(shop: ApiShop) -> None:
    at, key = "2026-11-01T00:00:00Z", {"Idempotency-Key": "erp-1"}
    shop.client.patch(f"/items/{item_id(3)}", json={"price_cents": 5}, params={"occurred_at": at}, headers=key)
    shop.settle()
    before = shop.get(f"/items/{item_id(3)}")
    shop.client.patch(f"/items/{item_id(3)}", json={"price_cents": 9})
    for _ in range(3):
        shop.client.patch(f"/items/{item_id(3)}", json={"price_cents": 5}, params={"occurred_at": at}, headers=key)
    shop.settle()
    assert shop.get(f"/items/{item_id(3)}") == {**before, "price_cents": 9}
