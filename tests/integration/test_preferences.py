"""Preferences: from the next request on, on every path and every worker, whatever is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from local.embedded import EmbeddedServers
from shared.adapters.keys import overlay_key, user_key
from shared.adapters.redis_connection import connect
from shared.ingest.exposures import read_exposures
from tests.integration.api_shop import (
    ApiShop,
    another_worker,
    behaviour,
    indexes,
    item_id,
    neighbours,
    open_shop,
    problem_of,
)
from tests.integration.wishes import got, put, settle, shown, wish


@pytest.fixture(scope="module")
def shop(own_servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiShop]:
    folder = tmp_path_factory.mktemp("blobs")
    with open_shop(own_servers.state_url, own_servers.log_url, folder, REDIS_TIMEOUT_MS="10000") as opened:
        yield opened


@pytest.fixture(scope="module")
def other(shop: ApiShop) -> Iterator[ApiShop]:
    with another_worker(shop) as opened:
        yield opened


@pytest.fixture
def state_client(own_servers: EmbeddedServers) -> Iterator[Redis]:
    with connect(own_servers.state_url, timeout_ms=5000) as client:
        yield client


# From the next request on, everywhere


def test_what_is_hidden_is_hidden_on_every_path_and_worker_before_anything_is_folded(
    shop: ApiShop, other: ApiShop
) -> None:
    before = shown(shop, "ann")
    assert all(before.values())
    hidden = [item_id(index) for found in before.values() for index in found[:3]]
    answer = put(shop, "ann", hidden_items=hidden, hidden_brands=["Brand 1"], max_price_cents=720)
    assert answer["everywhere"] is True
    for one in (other, shop):
        for path, found in shown(one, "ann").items():
            assert found, path
            assert not {index for index in found if index % 5 == 1 or index > 220 or item_id(index) in hidden}, path
        assert shown(one, "someone else") == before
        assert got(one, "ann")["preferences"]["hidden_items"] == hidden
    settle(shop, other)
    assert shown(shop, "ann") == shown(other, "ann")


def test_a_put_replaces_and_equals_what_was_asked(shop: ApiShop) -> None:
    assert got(shop, "bea") == {
        "user_id": "bea",
        "preferences": {
            "hidden_items": [], "hidden_categories": [], "hidden_brands": [], "favourite_categories": [],
            "min_price_cents": None, "max_price_cents": None, "personalised": True,
        },
        "set": False,
        "preferences_unavailable": False,
    }  # fmt: skip
    put(shop, "bea", hidden_categories=["Category 2"], min_price_cents=600)
    put(shop, "bea", favourite_categories=["Category 3"])
    for _ in range(2):
        found = got(shop, "bea")
        assert found["set"]
        assert found["preferences"]["hidden_categories"] == []
        assert found["preferences"]["favourite_categories"] == ["Category 3"]
        assert shop.get("/user_profile/bea")["preferences"] == {"favourite_categories": ["Category 3"]}
        settle(shop)


def test_events_that_are_posted_count_at_once_too(shop: ApiShop, other: ApiShop) -> None:
    shop.post(wish("cat", hidden_categories=["Shop"]), behaviour("cat", 1), wish("dan", hidden_categories=["Shop"]))
    for user in ("cat", "dan"):
        assert not any(shown(other, user).values())


def test_the_newest_instant_wins_whatever_comes_last(shop: ApiShop, other: ApiShop) -> None:
    now = datetime.now(UTC)
    shop.post(wish("eve", now, hidden_brands=["newest"]))
    other.post(wish("eve", now - timedelta(days=3), hidden_brands=["old"]))
    shop.post(wish("eve", now - timedelta(seconds=5), hidden_brands=["older"]))
    for _ in range(2):
        for one in (shop, other):
            assert got(one, "eve")["preferences"]["hidden_brands"] == ["newest"]
        settle(shop, other)
    other.post(wish("eve", now - timedelta(seconds=1), hidden_brands=["late"]))
    assert got(other, "eve")["preferences"]["hidden_brands"] == ["newest"], "the shards are newer than this overlay"


def test_wishes_of_the_future_count_from_when_the_broker_took_them(shop: ApiShop, other: ApiShop) -> None:
    shop.post(wish("fay", datetime.now(UTC) + timedelta(hours=5), hidden_brands=["first"]))
    put(other, "fay", hidden_brands=["second"])
    for _ in range(2):
        assert got(shop, "fay")["preferences"]["hidden_brands"] == ["second"]
        settle(shop, other)


def test_an_event_sent_again_with_another_content_is_what_the_fold_says(shop: ApiShop) -> None:
    """Until it is folded nobody can know that its id was used before."""
    shop.post(wish("gil", event_id="twice", hidden_brands=["first"]))
    settle(shop)
    shop.post(wish("gil", datetime.now(UTC) + timedelta(seconds=1), event_id="twice", hidden_brands=["second"]))
    settle(shop)
    assert got(shop, "gil")["preferences"]["hidden_brands"] == ["first"]


def test_many_puts_at_once_on_two_workers_have_one_truth(shop: ApiShop, other: ApiShop) -> None:
    def run(one: ApiShop, name: str) -> None:
        for turn in range(15):
            put(one, "hal", hidden_brands=[f"{name} {turn}"])

    threads = [threading.Thread(target=run, args=(one, name)) for one, name in ((shop, "a"), (other, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = [got(one, "hal")["preferences"] for one in (shop, other)]
    settle(shop, other)
    after = [got(one, "hal")["preferences"] for one in (shop, other)]
    assert before[0] == before[1] == after[0] == after[1]
    assert after[0]["hidden_brands"] in (["a 14"], ["b 14"])


def test_five_hundred_hidden_items_and_names_nobody_uses(shop: ApiShop, other: ApiShop) -> None:
    hidden = [item_id(index) for index in range(230)] + [f"unknown-{number}" for number in range(270)]
    names = [f"nobody {number}" for number in range(100)]
    put(shop, "ida", hidden_items=hidden, hidden_categories=names, hidden_brands=names, favourite_categories=names)
    for path, found in shown(other, "ida").items():
        assert set(found) <= set(range(230, 240)), path


NONSENSE: list[tuple[Any, str]] = [
    ({"min_price_cents": 5, "max_price_cents": 4}, "min_price_cents"),
    ({"hidden_items": ["a"] * 501}, "hidden_items"),
    ({"hidden_items": ["a/b"]}, "hidden_items"),
    ({"hidden_items": [""]}, "hidden_items"),
    ({"hidden_items": ["x" * 128] * 500}, "bytes"),
    ({"hidden_items": "sku-0001"}, "hidden_items"),
    ({"hidden_brands": [7]}, "hidden_brands"),
    ({"hidden_brands": ["\ud800"]}, "hidden_brands"),
    ({"hidden_brands": [""]}, "hidden_brands"),
    ({"hidden_categories": ["x" * 201]}, "hidden_categories"),
    ({"hidden_categories": ["x"] * 101}, "hidden_categories"),
    ({"min_price_cents": -1}, "min_price_cents"),
    ({"min_price_cents": "5"}, "min_price_cents"),
    ({"min_price_cents": 10**12}, "min_price_cents"),
    ({"min_price_cents": 1.5}, "min_price_cents"),
    ({"min_price_cents": True}, "min_price_cents"),
    ({"personalised": "no"}, "personalised"),
    ({"personalised": None}, "personalised"),
    ({"hidden": []}, "hidden"),
    ([], "body"),
    (None, "body"),
]


def test_what_makes_no_sense_is_refused_with_its_name(shop: ApiShop) -> None:
    for body, says in NONSENSE:
        answer = shop.client.put(
            "/user_profile/jan/preferences",
            content=json.dumps(body),
            headers={"content-type": "application/json"},
        )
        assert says in problem_of(answer, 422)["detail"], body
    assert not got(shop, "jan")["set"]


def test_posted_events_are_held_to_the_same_sense(shop: ApiShop) -> None:
    for wanted in ({"min_price_cents": 5, "max_price_cents": 4}, {"hidden_items": ["a/b"]}):
        problem_of(shop.client.post("/events", json=[wish("kim", **wanted)]), 422)
    assert not got(shop, "kim")["set"]


def test_a_price_range_of_one_price_is_one(shop: ApiShop) -> None:
    put(shop, "lea", min_price_cents=545, max_price_cents=545)
    assert shown(shop, "lea")["/items"] == [45]


def test_a_shopper_of_many_sources_and_partitions_has_one_truth(shop: ApiShop, state_client: Redis) -> None:
    """Her shards of every partition are read; the newest wish among them and the overlay counts."""
    now = datetime.now(UTC)
    shop.post(wish("mia", now - timedelta(days=1), hidden_brands=["folded"]))
    settle(shop)
    shop.post(wish("mia", now, hidden_brands=["newer"]))
    assert got(shop, "mia")["preferences"]["hidden_brands"] == ["newer"]
    state_client.delete(overlay_key(user_key("mia", shop.settings.user_key_secret)))
    assert got(shop, "mia")["preferences"]["hidden_brands"] == ["folded"]
    settle(shop)
    assert got(shop, "mia")["preferences"]["hidden_brands"] == ["newer"]


# Not personalised, and favourites


def test_who_wants_no_personal_page_is_a_stranger_whose_rules_hold(shop: ApiShop, other: ApiShop) -> None:
    shop.click("nel", 100)
    assert set(indexes(shop.page("nel"))) & set(neighbours(100))
    hidden = indexes(shop.page("stranger"))[0]
    put(shop, "nel", personalised=False, hidden_items=[item_id(hidden)])
    for one in (shop, other):
        page = one.page("nel", limit=19)
        assert page["fallback"] == {"cause": "not_personalised"}
        assert not page["preferences_unavailable"]
        expected = [index for index in indexes(one.page("stranger")) if index != hidden]
        assert indexes(page)[:10] == expected[:10]
        around = one.page("nel", context_item=item_id(100))
        assert set(indexes(around)) & set(neighbours(100)), "the page's own item is not behaviour"
    put(shop, "nel", personalised=True)
    assert set(indexes(shop.page("nel"))) & set(neighbours(100))


def test_an_exposure_shows_that_nothing_was_used(shop: ApiShop) -> None:
    shop.click("oda", 100)
    put(shop, "oda", personalised=False)
    page = shop.page("oda")
    put(shop, "oda", personalised=True)
    used = shop.page("oda")
    shop.services.exposures.flush()
    lines = {line["recommendation_id"]: line for line in read_exposures(shop.blobs)}
    assert set(lines[page["recommendation_id"]]["visibility"].values()) == {-1}
    assert lines[page["recommendation_id"]]["fallback"] == "not_personalised"
    assert max(lines[used["recommendation_id"]]["visibility"].values()) >= 0


def test_favourites_open_a_strangers_page(shop: ApiShop) -> None:
    put(shop, "pia", favourite_categories=["Category 9"])
    page = shop.page("pia")
    favourite = [item for item in page["items"] if item["category"] == "Category 9"]
    assert len(favourite) >= 5
    assert page["items"][0]["category"] == "Category 9"
    assert all("popular" in item["sources"] for item in favourite)
    assert {item["category"] for item in page["items"]} != {"Category 9"}, "popular things stand beside them"


def test_a_page_makes_no_trip_more_than_before(shop: ApiShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pipeline for her state, overlay and record: nothing waits twice."""
    put(shop, "xena", hidden_brands=["Brand 1"])
    trips: list[list[Any]] = []
    client = shop.services.recommender._reader._client
    pipeline: Callable[..., Any] = client.pipeline

    def counted(*args: Any, **options: Any) -> Any:
        made = pipeline(*args, **options)
        trips.append(made.command_stack)
        return made

    monkeypatch.setattr(client, "pipeline", counted)  # counts the real trips
    shop.page("xena")
    assert len(trips) == 1, "no clicks, so no lists"
