"""GET /search on a real shop: words, live changes, filters, pages, a shopper's own order; and that it bears attack."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_jobs.check_parity import check_parity
from local.embedded import EmbeddedServers
from shared.ingest.exposures import read_exposures
from shared.releases.bundle import SEARCH
from tests.integration.api_shop import (
    CATEGORIES,
    GONE,
    HIDDEN,
    PER_CATEGORY,
    ApiShop,
    full_update,
    ids,
    indexes,
    item_id,
    item_update,
    open_shop,
    problem_of,
)
from tests.integration.unreachable import Reach

COUNT = CATEGORIES * PER_CATEGORY


@pytest.fixture(scope="module")
def shop(own_servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiShop]:
    """One shop for all: each test has items and shoppers of its own."""
    folder = tmp_path_factory.mktemp("blobs")
    with open_shop(own_servers.state_url, own_servers.log_url, folder, REDIS_TIMEOUT_MS="500") as opened:
        yield opened


def search(shop: ApiShop, q: str, **query: Any) -> Any:
    return shop.get("/search", q=q, **query)


def change(shop: ApiShop, index: int, **changes: Any) -> None:
    shop.post(item_update(index, **changes))
    shop.settle()


def every_page(shop: ApiShop, q: str, **query: Any) -> list[str]:
    """All pages, one after the other."""
    page = search(shop, q, **query)
    found = ids(page)
    while page["next_cursor"]:
        page = search(shop, q, cursor=page["next_cursor"], **query)
        found += ids(page)
    return found


# Words


def test_id_title_brand_category_and_attributes_are_searched(shop: ApiShop) -> None:
    assert ids(search(shop, "sku-0031"))[0] == item_id(31)
    assert ids(search(shop, "SKU-0031 "))[0] == item_id(31)
    assert search(shop, "product 31", limit=1)["items"][0]["title"] == "Product 31"
    found = search(shop, "category 2 brand 3", limit=100)
    assert found["matched"] == "all"
    assert set(range(43, 60, 5)) <= set(indexes(found))
    assert search(shop, "red")["total"] >= COUNT - 20


def test_a_typo_is_forgiven_and_told(shop: ApiShop) -> None:
    found = search(shop, "prodcut 33", limit=3)
    assert item_id(33) in ids(found)
    assert found["matched"] == "all"
    assert found["corrected"] == {"prodcut": "product"}
    assert found["did_you_mean"] == "product 33"


def test_fewer_words_are_better_than_nothing_and_said_so(shop: ApiShop) -> None:
    found = search(shop, "product 34 zeppelin", limit=3)
    assert found["matched"] == "some"
    assert ids(found)[0] == item_id(34)
    nothing = search(shop, "zeppelin")
    assert (nothing["matched"], nothing["items"], nothing["total"]) == ("none", [], 0)
    assert nothing["next_cursor"] is None
    shop.click("nora", 30)
    for user_id in ("nora", "nobody-known"):
        assert search(shop, "zeppelin", user_id=user_id)["items"] == []
        assert search(shop, "product", user_id=user_id, category="Nowhere")["items"] == []


@pytest.mark.parametrize(
    "q",
    ["", "   ", "?!;", "\x00", "a", "product*^", "🎧 ☕", "日本語", "مرحبا", "00042", '"', "title:product",
     "{title} : product", "NEAR(product 1, 2)", "' OR 1=1 --", "product AND NOT product", "\ud83d", "%",
     "x" * 2000, "w " * 1000],
)  # fmt: skip
def test_no_query_is_refused_for_what_it_says(shop: ApiShop, q: str) -> None:
    answer = shop.client.get("/search", params={"q": q.encode("utf-8", "replace").decode(), "limit": 5})
    assert answer.status_code == 200, answer.text
    again = shop.client.get(
        "/search?limit=5&q=" + "".join(f"%{byte:02x}" for byte in q.encode("utf-8", "surrogatepass"))
    )
    assert again.status_code in {200, 422}, again.text


@pytest.mark.parametrize(
    "query",
    [
        {}, {"q": "x" * 2001}, {"q": "a", "limit": 0}, {"q": "a", "limit": 101}, {"q": "a", "sort": "random"},
        {"q": "a", "min_price_cents": -1}, {"q": "a", "max_price_cents": 10**20}, {"q": "a", "category": ""},
        {"q": "a", "in_stock": "perhaps"}, {"q": "a", "user_id": ""}, {"q": "a", "cursor": "x" * 7000},
        {"q": "a", "user_id": "a/b"}, {"q": "a", "device": ""},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(shop: ApiShop, query: dict[str, Any]) -> None:
    problem_of(shop.client.get("/search", params=query), 422)


# Live changes


def test_what_changed_is_found_by_what_it_is_called_now(shop: ApiShop) -> None:
    change(shop, 61, title="Walnut xylophone", description="for beginners")
    assert ids(search(shop, "xylophone")) == [item_id(61)]
    assert ids(search(shop, "xylopohne")) == [item_id(61)], "typos too"
    assert search(shop, "walnut xyl")["matched"] == "all"
    assert search(shop, "walnut beg")["matched"] == "some", "descriptions are searched by whole words"
    assert item_id(61) not in every_page(shop, "product 61", category="Category 3")
    change(shop, 61, title="Product 61", description="")
    assert search(shop, "xylophone")["matched"] == "none"
    assert ids(search(shop, "product 61", limit=1)) == [item_id(61)]


@pytest.mark.parametrize("gone", [{"stock": 0}, {"hidden": True}, {"deleted": True}])
def test_what_may_not_be_shown_is_not_found_and_not_counted(shop: ApiShop, gone: dict[str, Any]) -> None:
    before = search(shop, "product", category="Category 4")
    change(shop, 85, **gone)
    found = search(shop, "product", category="Category 4")
    assert found["total"] == before["total"] - 1
    assert item_id(85) not in ids(search(shop, item_id(85)))
    for unwanted in (GONE, HIDDEN):
        assert item_id(unwanted) not in ids(search(shop, item_id(unwanted), limit=100))
    change(shop, 85, **{name: 10 if name == "stock" else False for name in gone})
    assert search(shop, "product", category="Category 4")["total"] == before["total"]


def test_an_item_that_the_release_never_saw_is_found_at_once(shop: ApiShop) -> None:
    new = full_update(COUNT + 3) | {"changes": {**full_update(COUNT + 3)["changes"], "title": "Zither, maple"}}
    shop.post(new)
    shop.settle()
    for query in ({}, {"user_id": "zoe"}, {"sort": "newest"}):
        assert ids(search(shop, "zither", **query)) == [item_id(COUNT + 3)]
    change(shop, COUNT + 3, deleted=True)
    assert search(shop, "zither")["total"] == 0


def test_price_stock_and_category_are_those_of_now(shop: ApiShop) -> None:
    change(shop, 66, price_cents=99_000, stock=None, categories=["Shop", "Sales"])
    found = search(shop, "product", category="Sales")
    assert [(one["item_id"], one["price_cents"], one["stock"], one["category"]) for one in found["items"]] == [
        (item_id(66), 99_000, None, "Sales")
    ]
    assert found["facets"]["stock"] == {"in_stock": 0, "unknown": 1}
    assert search(shop, "product", category="Sales", in_stock=True)["total"] == 0
    assert search(shop, "product", min_price_cents=99_000)["total"] == 1
    assert ids(search(shop, "product", sort="-price", limit=1)) == [item_id(66)]
    assert item_id(66) not in every_page(shop, "product", category="Category 3")
    change(shop, 66, price_cents=566, stock=10, categories=["Shop", "Category 3"])


# Filters and orders


def test_filters_leave_what_their_counts_promise(shop: ApiShop) -> None:
    found = search(shop, "product")
    assert found["facets"]["categories"][0] == {"category": "Shop", "count": found["total"]}
    for facet in found["facets"]["categories"][1:4]:
        assert search(shop, "product", category=facet["category"])["total"] == facet["count"]
    for band in found["facets"]["prices"]:
        bounds = {name: band[name] for name in ("min_price_cents", "max_price_cents") if band[name] is not None}
        assert search(shop, "product", **bounds)["total"] == band["count"]
    narrow = search(shop, "product", category="Category 5", max_price_cents=604)
    assert narrow["total"] == 5
    assert len(narrow["facets"]["categories"]) > 2, "other categories at that price"
    assert search(shop, "product", min_price_cents=700, max_price_cents=600)["total"] == 0
    assert search(shop, "product", category_path=["Shop", "Category 5"])["total"] == PER_CATEGORY
    assert search(shop, "product", category_path=["Category 5"])["total"] == 0


def test_orders(shop: ApiShop) -> None:
    asked = {"category": "Category 6", "limit": 20}
    prices = [one["price_cents"] for one in search(shop, "product", sort="price", **asked)["items"]]
    assert prices == sorted(prices)
    assert [one["price_cents"] for one in search(shop, "product", sort="-price", **asked)["items"]] == prices[::-1]
    newest = indexes(search(shop, "product", sort="newest", limit=6))
    assert all(index % 40 == 39 for index in newest[:5]), "these arrived ten days ago, the others two hundred"
    popular = indexes(search(shop, "product", sort="popularity", limit=3))
    assert all(index % 15 == 9 for index in popular), "the crowd bought these most"
    scores = [one["score"] for one in search(shop, "product 12", limit=30)["items"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == 1


# Pages


@pytest.mark.parametrize("sort", ["relevance", "price", "popularity"])
@pytest.mark.parametrize("user_id", [None, "page-turner"])
def test_pages_together_are_all_hits_once(shop: ApiShop, sort: str, user_id: str | None) -> None:
    if user_id:
        shop.click(user_id, 140)
    asked = {"sort": sort, "category": "Category 7"} | ({"user_id": user_id} if user_id else {})
    found = every_page(shop, "product", limit=7, **asked)
    assert sorted(found) == [item_id(index) for index in range(140, 160)]
    whole = ids(search(shop, "product", limit=20, **asked))
    assert sorted(whole) == sorted(found)
    if user_id is None:
        assert whole == found


def test_nothing_comes_twice_or_never_whatever_changes_between_pages(shop: ApiShop) -> None:
    draw = random.Random(3)
    items = range(160, 180)
    for sort in ("price", "popularity", "relevance"):
        asked = {"sort": sort, "category": "Category 8", "user_id": f"restless-{sort}"}
        page = search(shop, "product", limit=3, **asked)
        found = ids(page)
        while page["next_cursor"]:
            for index in draw.sample(items, 4):
                shop.post(item_update(index, price_cents=draw.randrange(100, 900), title=f"Product {index} again"))
            shop.click(f"restless-{sort}", draw.choice(items), draw.choice(["view", "cart"]))
            page = search(shop, "product", limit=draw.randrange(1, 6), cursor=page["next_cursor"], **asked)
            found += ids(page)
        assert sorted(found) == [item_id(index) for index in items], sort


def test_pages_go_on_over_a_change_of_release(shop: ApiShop) -> None:
    page = search(shop, "product", category="Category 9", limit=8)
    shop.publish("r-test-next", extra={SEARCH: b"an index of a format to come"})
    shop.services.refresh()
    rest = search(shop, "product", category="Category 9", limit=20, cursor=page["next_cursor"])
    assert rest["release"] == "r-test-next"
    assert sorted(ids(page) + ids(rest)) == [item_id(index) for index in range(180, 200)]


def test_a_cursor_is_good_for_its_own_search_only(shop: ApiShop) -> None:
    asked = {"q": "product", "category": "Category 9", "user_id": "ursula"}
    cursor = shop.get("/search", limit=2, **asked)["next_cursor"]
    for other in (
        {"q": "Product"},
        {"category": "Category 8"},
        {"user_id": "vera"},
        {"sort": "price"},
        {"in_stock": True},
    ):
        problem = problem_of(shop.client.get("/search", params={**asked, **other, "cursor": cursor}), 422)
        assert problem["type"] == "urn:recommndr:problem:invalid_cursor"
        assert "another search" in problem["detail"]
    anonymous = {name: value for name, value in asked.items() if name != "user_id"}
    problem_of(shop.client.get("/search", params={**anonymous, "cursor": cursor}), 422)
    for forged in (cursor[:-2] + "AA", "AAAA", "💥", cursor[4:], ""):
        problem = problem_of(shop.client.get("/search", params={**asked, "cursor": forged}), 422)
        assert "not one of ours" in problem["detail"]


# A shopper's own order


def test_clicks_bring_their_like_up_and_the_text_keeps_a_clear_winner(servers: EmbeddedServers, tmp_path: Path) -> None:
    """On a shop of its own: what other tests rename would change what the text says."""
    with open_shop(servers.state_url, servers.log_url, tmp_path) as shop:
        stranger = search(shop, "red", user_id="wanda", limit=30)
        assert stranger["fallback"] == {"cause": "new_user"}
        assert ids(stranger) == ids(search(shop, "red", limit=30)), "nothing is known of her: the text decides"
        for index in (200, 203, 206):
            shop.click("wanda", index)
        own = search(shop, "red", user_id="wanda", limit=30)
        assert own["fallback"] is None
        near = [index for index in indexes(own)[:15] if 200 <= index < 220]
        by_text = [index for index in indexes(stranger)[:15] if 200 <= index < 220]
        assert len(near) >= 3 * len(by_text) > 0
        assert ids(search(shop, "product 17", user_id="wanda"))[0] == item_id(17)
        assert ids(search(shop, item_id(3), user_id="wanda"))[0] == item_id(3)
        by_price = {"sort": "price", "limit": 40}
        assert ids(search(shop, "red", user_id="wanda", **by_price)) == ids(search(shop, "red", **by_price))


def test_what_she_hid_stays_away_and_who_wants_nothing_personal_gets_text_order(shop: ApiShop) -> None:
    shop.click("xenia", 45)
    wishes = {"hidden_categories": ["Category 2"], "hidden_items": [item_id(30)], "max_price_cents": 640}
    assert shop.client.put("/user_profile/xenia/preferences", json=wishes).status_code == 202
    found = every_page(shop, "product", user_id="xenia", limit=100)
    assert found
    assert not {item_id(30), *(item_id(index) for index in range(40, 60)), item_id(230)} & set(found)
    facets = search(shop, "product", user_id="xenia")["facets"]["categories"]
    assert "Category 2" not in {one["category"] for one in facets}
    answer = shop.client.put("/user_profile/xenia/preferences", json={"personalised": False})
    assert answer.status_code == 202
    found = search(shop, "product", user_id="xenia")
    assert found["fallback"] == {"cause": "not_personalised"}
    assert ids(found) == ids(search(shop, "product"))


def test_without_redis_the_text_decides_and_the_answer_says_so(shop: ApiShop, own_servers: EmbeddedServers) -> None:
    shop.click("yolanda", 100)
    with Reach(own_servers.state_url).away():
        found = search(shop, "red", user_id="never-seen-before")
        assert found["fallback"] == {"cause": "state_unavailable"}
        assert found["preferences_unavailable"] is True
        assert ids(found) == ids(search(shop, "red"))
    shop.clock.at = None


def test_pages_of_a_search_are_recorded_and_recompute(servers: EmbeddedServers, tmp_path: Path) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as fresh:
        fresh.click("zora", 21)
        fresh.click("zora", 25, "cart")
        pages = [
            search(fresh, "prodcut red", user_id=user, device="mobile", **asked)
            for user in ("zora", "a-stranger")
            for asked in ({"limit": 25}, {"sort": "price"}, {"category": "Category 1"})
        ]
        search(fresh, "product")
        fresh.page("zora")
        fresh.settle()
        fresh.services.exposures.flush()
        fresh.services.sealer.run()
        lines = {line["recommendation_id"]: line for line in read_exposures(fresh.blobs)}
        assert len(lines) == len(pages) + 1, "a search without a user is nobody's exposure"
        for page in pages:
            line = lines[page["recommendation_id"]]
            assert (line["items"], line["surface"], line["device"]) == (ids(page), "search", "mobile")
            assert line["retrieval_text"] == pytest.approx([one["score"] for one in page["items"]], abs=1e-6)
            assert line["propensities"] == [1.0] * len(line["items"])
        differences = check_parity(fresh.blobs)
        assert differences.exposures == len(lines)
        assert not differences.skipped
        assert differences.mismatches.sum() == 0, differences.first_mismatch


# Many at once


def test_searching_while_the_shop_is_restocked(shop: ApiShop) -> None:
    stop, problems = threading.Event(), []

    def ask(number: int) -> None:
        while not stop.is_set():
            query = {"q": "product", "category": "Category 10", "limit": 40} | ({"user_id": "busy"} if number else {})
            answer = shop.client.get("/search", params=query)
            if answer.status_code != 200 or len(ids(answer.json())) > PER_CATEGORY:
                problems.append(answer.text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(12):
        change(shop, 200 + turn, stock=turn % 2 * 5, title=f"Product {200 + turn} turn {turn}")
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []
    found = search(shop, "product turn", category="Category 10", limit=40)
    assert sorted(indexes(found)) == [200 + turn for turn in range(12) if turn % 2]
