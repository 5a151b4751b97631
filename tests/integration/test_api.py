"""The API over a real shop: what it answers, and that its documentation is true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis

from functions.api.models import BoughtTogether, Item, Items, PopularItems, Recommendations, SimilarItems, UserProfile
from local.embedded import EmbeddedServers
from shared.adapters.keys import release_bucket, user_key
from shared.adapters.redis_releases import RedisReleaseStore
from shared.candidates.nightly import state_token
from shared.events import check_id
from shared.features.shard import merge_shards
from shared.ingest.exposures import read_exposures
from shared.releases.lists import NightlyRecord
from tests.integration.api_shop import (
    GONE,
    HIDDEN,
    PER_CATEGORY,
    RELEASE,
    ApiShop,
    behaviour,
    category_of,
    full_update,
    ids,
    indexes,
    item_id,
    item_update,
    neighbours,
    open_shop,
    problem_of,
)


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


# /recommend


def test_a_stranger_gets_popularity_at_once_and_personal_results_after_one_click(shop: ApiShop) -> None:
    first = shop.page("stranger")
    assert first["fallback"] == {"cause": "new_user"}
    assert len(first["items"]) == 20
    assert {source for item in first["items"] for source in item["sources"]} <= {"popular", "arrivals"}
    popular = [item["item_id"] for item in shop.get("/popular", limit=60)["items"]]
    assert set(ids(first)) <= set(popular) | {item_id(index) for index in range(39, 240, 40)}

    clicked = 100
    assert not set(neighbours(clicked)) & set(indexes(first))
    shop.click("stranger", clicked)
    second = shop.page("stranger")
    assert second["fallback"] is None
    assert indexes(second)[0] in neighbours(clicked)
    reasons = [item["reason"] for item in second["items"]]
    assert any("Product 100" in reason for reason in reasons)
    sources = {source for item in second["items"] for source in item["sources"]}
    assert {"als", "cooccurrence", "transitions", "popular"} <= sources


def test_a_page_has_the_form_the_documentation_promises(shop: ApiShop) -> None:
    shop.click("alice", 30)
    page = Recommendations.model_validate(shop.page("alice", limit=7, explain="true"))
    assert [item.rank for item in page.items] == list(range(1, 8))
    assert page.release == RELEASE
    assert page.recommendation_id.startswith(f"{RELEASE}.")
    check_id(page.recommendation_id, "recommendation_id")
    assert page.candidates >= 200
    assert page.explanation is not None
    assert page.explanation.removed["unavailable"] == 2
    for item in page.items:
        assert item.explanation is not None
        assert set(item.sources) == set(item.explanation.sources)
        assert item.explanation.propensity == 1.0
        assert item.title == f"Product {int(item.item_id[4:])}"
        assert item.price_cents == 500 + int(item.item_id[4:])
    plain = Recommendations.model_validate(shop.page("alice", limit=7))
    assert plain.explanation is None
    assert plain.items[0].explanation is None
    assert plain.recommendation_id != page.recommendation_id


def test_category_exclusions_and_the_page_item_are_obeyed(shop: ApiShop) -> None:
    shop.click("bob", 3)
    only = shop.page("bob", category="Category 4", limit=10)
    assert {item["category"] for item in only["items"]} == {"Category 4"}
    assert len(only["items"]) == 10
    assert len(shop.page("bob", category="Shop")["items"]) == 20
    assert shop.page("bob", category="Nowhere")["items"] == []

    page = ids(shop.page("bob"))
    fewer = shop.client.get("/recommend/bob", params={"exclude": [f"{page[0]},{page[1]}", page[2], "sku-never"]}).json()
    assert not set(ids(fewer)) & set(page[:3])
    assert page[3] in ids(fewer)

    around = indexes(shop.page("bob", context_item=item_id(205)))
    assert len(set(around) & set(neighbours(205))) > len(
        set(map(int, (one[4:] for one in page))) & set(neighbours(205))
    )
    assert 205 not in around[:1]


def test_out_of_stock_hidden_and_bought_things_are_never_shown(shop: ApiShop) -> None:
    shop.click("carol", 6)
    for path in (
        "/recommend/carol?limit=100",
        "/similar_items/sku-0006",
        "/bought_together/sku-0006",
        "/popular?category=Category%200",
        "/items?category=Category%200",
    ):
        shown = indexes(shop.get(path))
        assert shown
        assert not {GONE, HIDDEN} & set(shown)

    best = indexes(shop.page("carol"))[0]
    shop.click("carol", best, "purchase")
    assert best not in indexes(shop.page("carol", limit=100))
    next_best = indexes(shop.page("carol"))[0]
    shop.post(item_update(next_best, stock=0))
    shop.settle()
    assert next_best not in indexes(shop.page("carol", limit=100))
    shop.post(item_update(next_best, stock=3))
    shop.settle()
    assert next_best in indexes(shop.page("carol", limit=100))


def test_preferences_are_obeyed(shop: ApiShop) -> None:
    shop.click("dora", 45)
    assert "Category 2" in {item["category"] for item in shop.page("dora")["items"]}
    preferences = {"hidden_categories": ["Category 2"], "max_price_cents": 600}
    shop.post({**behaviour("dora", 0, "preferences_set", changes=preferences), "item_id": None, "price_cents": None})
    shop.settle()
    shown = shop.page("dora", limit=100)["items"]
    assert shown
    assert "Category 2" not in {item["category"] for item in shown}
    assert max(item["price_cents"] for item in shown) <= 600
    assert shop.get("/user_profile/dora")["preferences"]["max_price_cents"] == 600


def test_the_nightly_record_stands_in_until_the_next_click(shop: ApiShop) -> None:
    shop.click("erin", 60)
    release = shop.services.releases.release_for("erin")
    reader = shop.services.recommender._reader
    read = reader.shopper("erin", release)
    state = merge_shards([shard for shard in read.shards.values() if shard is not None], shop.clock()).state
    told = [200, 201, GONE, 202]
    scores = np.array([4, 3, 2, 1], np.float32)
    record = NightlyRecord(*state_token(state), np.array(told, np.int32), scores, np.zeros(12, np.float32))
    key = user_key("erin", shop.settings.user_key_secret)
    shop.releases.write_lists(RELEASE, "nightly", {key: record.encode(RELEASE)})

    def als(page: Any) -> dict[int, int]:
        return {
            int(item["item_id"][4:]): item["explanation"]["sources"]["als"]["rank"]
            for item in page["items"]
            if "als" in item["sources"]
        }

    assert als(shop.page("erin", limit=100, explain="true")) == {200: 1, 201: 2, 202: 3}
    assert als(shop.page("erin", limit=100, explain="true", category="Category 3")).keys() != {200, 201, 202}
    shop.click("erin", 61)
    assert 200 not in als(shop.page("erin", limit=100, explain="true"))


def test_lists_of_another_release_are_never_used(shop: ApiShop, state_client: Redis) -> None:
    shop.click("fay", 80)
    store = RedisReleaseStore(state_client)
    for name in ("similar", "cooccurrence", "bought_together"):
        bucket = release_bucket(RELEASE, name, 80 // 64)
        data = store.similar_lists(RELEASE, name, [80])[0]
        assert data is not None
        state_client.hset(bucket, "80", b"\0" * 8 + data[8:])
    page = shop.page("fay")
    assert page["fallback"] == {"cause": "lists_unavailable"}
    assert len(page["items"]) == 20
    problem_of(shop.client.get("/similar_items/sku-0080"), 503)


# Items


def test_similar_and_bought_together_come_from_the_items_lists(shop: ApiShop) -> None:
    similar = SimilarItems.model_validate(shop.get("/similar_items/sku-0100", limit=5))
    assert [int(item.item_id[4:]) for item in similar.items] == neighbours(100)[:5]
    assert [item.rank for item in similar.items] == [1, 2, 3, 4, 5]
    assert similar.fallback is None
    together = BoughtTogether.model_validate(shop.get("/bought_together/sku-0100"))
    assert [int(item.item_id[4:]) for item in together.items] == neighbours(100)
    assert (together.items[0].support, together.items[0].lift, together.items[0].confidence) == (9, 2.0, 0.5)


def test_an_item_younger_than_the_release_is_known_at_once(shop: ApiShop) -> None:
    new = {**full_update(0), "item_id": "sku-new"}
    new["changes"] |= {"title": "Lantern", "categories": ["Shop", "Category 3"]}
    shop.post(new)
    shop.settle()
    assert shop.get("/items/sku-new")["category"] == "Category 3"
    similar = shop.get("/similar_items/sku-new")
    assert similar["fallback"] == {"cause": "new_item"}
    assert {item["category"] for item in similar["items"]} == {"Category 3"}
    assert shop.get("/bought_together/sku-new")["items"] == []
    shop.post({**behaviour("gail", 0), "item_id": "sku-new"})
    shop.settle()
    assert shop.get("/user_profile/gail")["recent_history"][0]["item_id"] == "sku-new"
    assert len(shop.page("gail", context_item="sku-new")["items"]) == 20


def test_items_are_paged_and_each_tells_how_it_stands(shop: ApiShop) -> None:
    pages = [Items.model_validate(shop.get("/items", page=number)) for number in range(1, 6)]
    seen = [item.item_id for page in pages for item in page.items]
    assert len(seen) == len(set(seen)) == pages[0].total == 238
    assert pages[0].pages == 5
    assert shop.get("/items", page=6)["items"] == []
    assert shop.get("/items", category="Category 1")["total"] == PER_CATEGORY
    gone = Item.model_validate(shop.get(f"/items/{item_id(GONE)}"))
    assert (gone.stock, gone.available, gone.hidden) == (0, False, False)
    hidden = Item.model_validate(shop.get(f"/items/{item_id(HIDDEN)}"))
    assert (hidden.available, hidden.hidden) == (False, True)
    assert hidden.categories == ["Shop", "Category 0"]


def test_popular_follows_what_happens(shop: ApiShop) -> None:
    ranking = PopularItems.model_validate(shop.get("/popular", category="Category 9", limit=3))
    assert {item.category for item in ranking.items} == {"Category 9"}
    scores = [item.score for item in ranking.items]
    assert scores == sorted(scores, reverse=True)
    slow = next(index for index in range(180, 200) if item_id(index) not in [one.item_id for one in ranking.items])
    shop.post(*(behaviour(f"fan-{number}", slow, "purchase") for number in range(20)))
    shop.settle()
    assert shop.get("/popular", limit=1)["items"][0]["item_id"] == item_id(slow)


def test_a_profile_can_be_read_by_a_person(shop: ApiShop) -> None:
    unknown = UserProfile.model_validate(shop.get("/user_profile/nobody"))
    assert not unknown.known
    assert not unknown.recent_history
    assert not unknown.top_categories
    shop.click("hugo", 21)
    shop.click("hugo", 45, "cart")
    profile = UserProfile.model_validate(shop.get("/user_profile/hugo"))
    assert profile.known
    assert [(one.event_type, one.title) for one in profile.recent_history] == [
        ("cart", "Product 45"),
        ("view", "Product 21"),
    ]
    shares = {one.category: one.share for one in profile.top_categories}
    assert list(shares) == [category_of(45), category_of(21)]
    assert sum(shares.values()) == pytest.approx(1)
    assert profile.features["user_view_count_ever"] == 1
    assert profile.features["user_cart_decayed_1d"] == pytest.approx(1, abs=0.01)


# Operations


def test_health_and_metrics(shop: ApiShop) -> None:
    assert shop.get("/health/live") == {"status": "alive"}
    ready = shop.get("/health/ready")
    assert ready["status"] == "ready"
    assert all(one["ok"] for one in ready["checks"])
    shop.page("nina")
    text = shop.client.get("/metrics").text
    assert 'recommndr_http_requests_total{route="/recommend/{user_id}",status="200"} 1.0' in text
    assert 'recommndr_fallbacks_total{cause="new_user"} 1.0' in text
    assert f'recommndr_pages_total{{release="{RELEASE}"}} 1.0' in text


def test_the_documentation_has_every_endpoint_with_examples_and_one_error_shape(shop: ApiShop) -> None:
    assert "swagger" in shop.client.get("/docs").text.lower()
    document = shop.get("/openapi.json")
    paths = document["paths"]
    assert "/recommend/{user_id}" in paths
    assert "/events" in paths
    assert "HTTPValidationError" not in json.dumps(document)
    assert paths["/events"]["post"]["requestBody"]["content"]["application/json"]["example"]
    for path in paths.values():
        for operation in path.values():
            assert operation["description"]
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert "application/problem+json" in answer["content"]


def test_exposures_hold_what_was_shown(shop: ApiShop) -> None:
    shop.click("olga", 111)
    page = shop.page("olga", limit=9)
    shop.services.exposures.flush()
    exposure = next(iter(read_exposures(shop.blobs)))
    assert exposure["recommendation_id"] == page["recommendation_id"]
    assert exposure["items"] == ids(page)
    assert exposure["user_id"] == "olga"
    assert exposure["propensities"] == [1.0] * 9
    assert set(exposure["item_marks"]) == {f"live-1.{partition}" for partition in range(4)}
    assert [sequence for sequence in exposure["visibility"].values() if sequence >= 0]


def test_sampling_writes_the_share_that_was_set(servers: EmbeddedServers, tmp_path: Path) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path, EXPOSURE_SAMPLING="0.5") as half:
        for _ in range(60):
            half.page("pia", limit=1)
        half.services.exposures.flush()
        assert 10 < len(list(read_exposures(half.blobs))) < 50


def test_exploration_gives_one_place_to_an_arrival_and_tells_its_probability(
    servers: EmbeddedServers, tmp_path: Path
) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path, EXPLORATION="1") as bold:
        bold.click("quinn", 100)
        page = bold.page("quinn", explain="true", limit=10)
        explored = [item for item in page["items"] if item["explanation"]["propensity"] < 1]
        assert len(explored) == 1
        assert explored[0]["rank"] > 5
        assert explored[0]["reason"].startswith("new:")
        assert "arrivals" in explored[0]["sources"]
        bold.services.exposures.flush()
        recorded = next(iter(read_exposures(bold.blobs)))
        assert recorded["propensities"] == [item["explanation"]["propensity"] for item in page["items"]]
