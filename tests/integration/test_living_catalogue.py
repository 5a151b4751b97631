"""A change of the catalogue reaches every worker and every path; what no release knows is shown all the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_jobs.check_parity import check_parity
from local.embedded import EmbeddedServers
from shared.ingest.exposures import read_exposures
from tests.integration.api_shop import (
    ApiShop,
    another_worker,
    behaviour,
    ids,
    item_id,
    neighbours,
    open_shop,
    problem_of,
)

LAMP: dict[str, Any] = {
    "title": "Brass lamp", "categories": ["Shop", "Category 3"], "brand": "Brand 1", "price_cents": 565, "stock": 4,
}  # fmt: skip
LEAVES: dict[str, tuple[str, dict[str, Any] | None]] = {
    "out of stock": ("PATCH", {"stock": 0}),
    "hidden": ("PATCH", {"hidden": True}),
    "deleted": ("DELETE", None),
}


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


def write(shop: ApiShop, method: str, item: str, body: dict[str, Any] | None = None) -> None:
    answer = shop.client.request(method, f"/items/{item}", json=body)
    assert answer.status_code == 202, answer.text


def put_lamp(shop: ApiShop, item: str = "lamp", **changes: Any) -> None:
    write(shop, "PUT", item, {**LAMP, **changes})
    shop.settle()


def act(shop: ApiShop, user_id: str, item: str, kind: str = "view") -> None:
    shop.post({**behaviour(user_id, 0, kind), "item_id": item})
    shop.settle()


def shown_everywhere(shop: ApiShop, item: str, near: str, category: str, title: str) -> dict[str, bool]:
    """On which paths the item is; each asks for so much that it would be there if it might."""
    pages: dict[str, dict[str, Any]] = {
        "/recommend/fan": {"limit": 100},
        "/recommend/fan?category": {"limit": 100, "category": category},
        "/recommend/fan?context": {"limit": 100, "context_item": near},
        "/recommend/stranger": {"limit": 100, "category": category},
        f"/similar_items/{near}": {"limit": 100},
        f"/bought_together/{near}": {"limit": 100},
        "/popular": {"category": category, "limit": 100},
        "/items": {"category": category, "limit": 100},
        "/search": {"q": title},
        "/search?category": {"q": title, "user_id": "fan", "category": category},
    }
    return {path: item in ids(shop.get(path.split("?")[0], **query)) for path, query in pages.items()}


@pytest.mark.parametrize("how", LEAVES)
def test_what_leaves_is_gone_from_every_path_of_every_worker(shop: ApiShop, how: str) -> None:
    gone, near, title = item_id(neighbours(60)[0]), item_id(60), f"Product {neighbours(60)[0]}"
    for user in ("fan", "other"):
        shop.click(user, 60)
    with another_worker(shop) as second:
        before = [shown_everywhere(worker, gone, near, "Category 3", title) for worker in (shop, second)]
        assert all(all(paths.values()) for paths in before), before
        method, body = LEAVES[how]
        write(shop, method, gone, body)
        shop.settle()
        second.services.follower.follow()
        for worker in (shop, second):
            assert not any(shown_everywhere(worker, gone, near, "Category 3", title).values())
            assert worker.get("/categories")["items_count"] == 237
        if how == "deleted":
            problem_of(second.client.get(f"/items/{gone}"), 404)
        write(second, "PUT", gone, {**LAMP, "title": "Back again"})
        second.pump()
        for worker in (shop, second):
            worker.services.follower.follow()
            assert all(shown_everywhere(worker, gone, near, "Category 3", "Back again").values())


def test_what_left_before_redis_went_away_does_not_come_back_with_the_fallback(tmp_path: Path) -> None:
    with (
        EmbeddedServers(tmp_path / "servers") as own,
        open_shop(own.state_url, own.log_url, tmp_path / "blobs", REDIS_TIMEOUT_MS="250") as shop,
    ):
        popular = ids(shop.get("/popular", limit=3))
        for item, (method, body) in zip(popular, LEAVES.values(), strict=True):
            write(shop, method, item, body)
        put_lamp(shop)
        assert own.state is not None
        own.state.kill()
        page = shop.page("ann", limit=100)
        assert page["fallback"] == {"cause": "state_unavailable"}
        assert len(page["items"]) == 100
        assert not set(popular) & set(ids(page))
        assert "lamp" in ids(shop.page("ann", limit=100, category="Category 3"))
        assert not set(popular) & set(ids(shop.get("/popular", limit=100)))
        assert shop.client.put("/items/later", json=LAMP).status_code == 202, "the log fails apart"


def test_a_new_item_is_shown_before_any_release_knows_it(shop: ApiShop) -> None:
    with another_worker(shop) as second:
        put_lamp(shop)
        second.services.follower.follow()
        act(shop, "lamp-lover", item_id(60))
        for worker in (shop, second):
            assert ids(worker.get("/items", sort="newest", limit=1)) == ["lamp"]
            assert "lamp" in ids(worker.get("/popular", category="Category 3", limit=100))
            for user in ("stranger", "lamp-lover"):
                page = worker.page(user, limit=100, category="Category 3")
                found = next(item for item in page["items"] if item["item_id"] == "lamp")
                assert "arrivals" in found["sources"]
                assert "lamp" not in ids(worker.page(user, limit=100, category="Category 3", exclude="lamp"))
            assert "lamp" in ids(worker.page("lamp-lover", limit=100))


def test_a_new_item_with_events_comes_by_popularity_and_brings_its_fans_their_own(shop: ApiShop) -> None:
    put_lamp(shop, arrived_at="2020-01-01T00:00:00Z")  # arrivals will not speak for it
    assert "lamp" not in ids(shop.page("stranger", limit=100))
    for number in range(8):
        act(shop, f"buyer-{number}", "lamp", "purchase")
    act(shop, "fan", item_id(61))
    found = next(item for item in shop.page("fan", limit=100)["items"] if item["item_id"] == "lamp")
    assert "popular" in found["sources"]
    act(shop, "lamp-fan", "lamp")
    page = shop.page("lamp-fan")
    assert page["fallback"] is None
    assert page["items"][0]["category"] == "Category 3"
    assert shop.page("lamp-fan", context_item="lamp")["items"][0]["category"] == "Category 3"
    assert shop.get("/user_profile/lamp-fan")["recent_history"][0]["title"] == "Brass lamp"
    write(shop, "DELETE", "lamp")
    shop.settle()
    page = shop.page("lamp-fan", limit=100)
    assert "lamp" not in ids(page)
    assert not any("lamp" in item["reason"] for item in page["items"])
    assert shop.get("/user_profile/lamp-fan")["recent_history"][0]["title"] is None


def test_items_like_a_new_one_are_those_with_its_attributes(shop: ApiShop) -> None:
    put_lamp(shop)
    put_lamp(shop, "lamp-2", title="Brass lamp, small", price_cents=560)
    found = shop.get("/similar_items/lamp", limit=10)
    assert found["fallback"] == {"cause": "new_item"}
    assert ids(found)[0] == "lamp-2"
    assert {item["category"] for item in found["items"]} == {"Category 3"}
    assert "lamp" not in ids(found)
    assert all(0 < item["score"] <= 1 for item in found["items"])
    assert shop.get("/bought_together/lamp")["items"] == []


def test_a_new_item_can_have_the_exploration_slot(servers: EmbeddedServers, tmp_path: Path) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path, EXPLORATION="1") as bold:
        bold.click("quinn", 100)
        put_lamp(bold)
        for _ in range(60):
            page = bold.page("quinn", limit=4, explain="true")
            slot = next(item for item in page["items"] if item["explanation"]["propensity"] < 1)
            if slot["item_id"] == "lamp":
                break
        assert slot["item_id"] == "lamp"
        assert slot["reason"].startswith("new:")


def test_a_release_of_before_the_item_changes_nothing(shop: ApiShop) -> None:
    put_lamp(shop)
    shop.publish("r-test-2")
    shop.services.refresh()
    page = shop.page("stranger", limit=100, category="Category 3")
    assert page["release"] == "r-test-2"
    assert "lamp" in ids(page)


def test_pages_with_new_items_recompute_exactly(shop: ApiShop) -> None:
    put_lamp(shop)
    put_lamp(shop, "lamp-2", categories=[], brand=None)
    for user, item in (("ann", "lamp"), ("bob", item_id(65)), ("ann", item_id(3)), ("cleo", "lamp-2")):
        act(shop, user, item, "cart")
        assert "lamp" in ids(shop.page(user, limit=30, category="Category 3"))
        assert len(ids(shop.page(user, limit=100))) == 100
    write(shop, "PATCH", "lamp", {"price_cents": 700, "stock": 2})
    shop.settle()
    assert "lamp" in ids(shop.page("ann", limit=30, category="Category 3"))
    shop.services.exposures.flush()
    shop.services.sealer.run()
    shown = [line["items"] for line in read_exposures(shop.blobs)]
    assert sum("lamp" in items for items in shown) >= 5
    assert any("lamp-2" in items for items in shown)
    differences = check_parity(shop.blobs)
    assert differences.exposures == 9
    assert differences.rows == 5 * 21 + 4 * 100, "the category whole, and four long pages"
    assert not differences.skipped
    assert differences.mismatches.sum() == 0, differences.first_mismatch


def test_two_workers_that_write_at_once_agree_in_the_end(shop: ApiShop) -> None:
    with another_worker(shop) as second:
        put_lamp(shop)

        def keep_writing(worker: ApiShop, first: int) -> None:
            for number in range(first, first + 15):
                write(worker, "PATCH", "lamp", {"stock": number, "price_cents": number})
                write(worker, "PUT", item_id(4), {**LAMP, "title": f"Title {number}"})

        writers = [threading.Thread(target=keep_writing, args=one) for one in ((shop, 100), (second, 200))]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
        shop.settle()
        second.services.follower.follow()
        for item in ("lamp", item_id(4)):
            assert shop.get(f"/items/{item}") == second.get(f"/items/{item}")
        found = shop.get("/items/lamp")
        assert found["stock"] == found["price_cents"]
        assert found["stock"] in (114, 214)


def test_no_reason_names_what_was_deleted(shop: ApiShop) -> None:
    shop.click("fan", 60)
    assert any("Product 60" in item["reason"] for item in shop.page("fan")["items"])
    write(shop, "DELETE", item_id(60))
    shop.settle()
    page = shop.page("fan", limit=100)
    assert set(ids(page)) & {item_id(index) for index in neighbours(60)}, "what she did still counts"
    assert not any("Product 60" in item["reason"] for item in page["items"])
