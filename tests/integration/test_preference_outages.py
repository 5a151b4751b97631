"""Preferences while Redis or the broker log is away: what is known holds, and what is not is said."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from functions.preferences.preference_cache import HELD_S, TRUSTED_S
from local.embedded import EmbeddedServers
from tests.integration.api_shop import (
    ApiShop,
    another_worker,
    open_shop,
    problem_of,
)
from tests.integration.unreachable import Reach
from tests.integration.wishes import CIRCUIT_S, back, flagged, got, put, settle, wish


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
def state(shop: ApiShop, own_servers: EmbeddedServers) -> Iterator[Reach]:
    reach = Reach(own_servers.state_url)
    yield reach
    back(reach, shop)


@pytest.fixture
def log(shop: ApiShop, own_servers: EmbeddedServers) -> Iterator[Reach]:
    reach = Reach(own_servers.log_url)
    yield reach
    back(reach, shop)


def test_without_redis_cached_wishes_hold_and_others_are_flagged(shop: ApiShop, other: ApiShop, state: Reach) -> None:
    put(shop, "quin", hidden_categories=["Category 2", "Category 3"])
    shop.page("known without wishes")
    state.cut()
    page = shop.page("quin", limit=100)
    assert page["fallback"] == {"cause": "state_unavailable"}
    assert not {item["category"] for item in page["items"]} & {"Category 2", "Category 3"}
    assert not any(flagged(shop, "quin").values())
    assert not any(flagged(shop, "known without wishes").values())
    for one, user in ((other, "quin"), (shop, "never seen")):
        assert all(flagged(one, user).values())
        problem_of(one.client.get(f"/user_profile/{user}/preferences"), 503)
    for path in ("/popular", "/items"):
        assert not shop.get(path)["preferences_unavailable"], "nobody's preferences are not missed"
    back(state, shop)
    assert not any(flagged(other, "quin").values())


def test_what_is_held_for_long_is_obeyed_with_a_caveat_and_then_forgotten(shop: ApiShop, state: Reach) -> None:
    put(shop, "rob", hidden_categories=["Category 2"])
    with state.away():
        shop.seconds.ahead += TRUSTED_S + 1
        page = shop.page("rob", limit=100)
        assert page["preferences_unavailable"]
        assert "Category 2" not in {item["category"] for item in page["items"]}
        told = got(shop, "rob")
        assert told["preferences_unavailable"]
        assert told["preferences"]["hidden_categories"] == ["Category 2"]
        shop.seconds.ahead += HELD_S
        assert "Category 2" in {item["category"] for item in shop.page("rob", limit=100)["items"]}


def test_what_another_worker_was_told_before_redis_went_is_not_contradicted(
    shop: ApiShop, other: ApiShop, state: Reach
) -> None:
    """Each worker hears of others' writes and forgets what it held before them, but not what is as new."""
    for one in (shop, other):
        one.services.keeper.keep_up()
    for user in ("yan", "zoe"):
        put(shop, user, hidden_brands=["before"])
        got(other, user)
    other.services.keeper.keep_up()
    put(shop, "yan", hidden_categories=["Category 2"])
    for one in (shop, other):
        one.services.keeper.keep_up()
    with state.away():
        assert all(flagged(other, "yan").values())
        assert not any(flagged(other, "zoe").values())
        assert not any(flagged(shop, "yan").values())
        assert got(shop, "yan")["preferences"]["hidden_categories"] == ["Category 2"]


def test_a_put_without_redis_is_held_here_and_reaches_all_when_it_is_back(
    shop: ApiShop, other: ApiShop, state: Reach
) -> None:
    put(shop, "sue", hidden_brands=["before"])
    got(other, "sue")
    state.cut()
    answer = put(shop, "sue", hidden_categories=["Category 2"])
    assert answer["everywhere"] is False
    assert got(shop, "sue")["preferences"]["hidden_categories"] == ["Category 2"]
    assert "Category 2" not in {item["category"] for item in shop.page("sue", limit=100)["items"]}
    back(state, shop)
    assert got(shop, "sue")["preferences"]["hidden_categories"] == ["Category 2"], "here it held all the time"
    shop.services.keeper.keep_up()
    assert got(other, "sue")["preferences"]["hidden_categories"] == ["Category 2"]
    settle(shop, other)
    assert got(other, "sue")["preferences"]["hidden_categories"] == ["Category 2"]


def test_a_put_whose_worker_dies_with_it_is_not_lost(shop: ApiShop, other: ApiShop, state: Reach) -> None:
    with state.away():
        put(shop, "tom", hidden_categories=["Category 2"])
    other.seconds.ahead += CIRCUIT_S
    settle(other)
    assert got(other, "tom")["preferences"]["hidden_categories"] == ["Category 2"]


def test_an_older_wish_kept_for_redis_does_not_undo_a_newer_one(shop: ApiShop, other: ApiShop, state: Reach) -> None:
    with state.away():
        put(shop, "una", hidden_brands=["older"])
    shop.seconds.ahead += CIRCUIT_S
    put(other, "una", hidden_brands=["newer"])
    for one in (shop, other):
        assert got(one, "una")["preferences"]["hidden_brands"] == ["newer"]
    shop.services.keeper.keep_up()
    for one in (shop, other):
        assert got(one, "una")["preferences"]["hidden_brands"] == ["newer"]


def test_wishes_dated_back_are_not_taken_for_all_there_is_while_redis_is_away(shop: ApiShop, state: Reach) -> None:
    with state.away():
        shop.post(wish("vera", datetime.now(UTC) - timedelta(days=1), hidden_brands=["yesterday"]))
        assert shop.page("vera")["preferences_unavailable"]
        shop.post(wish("vera", hidden_brands=["now"]))
        assert not shop.page("vera")["preferences_unavailable"]


def test_without_the_broker_log_nothing_is_taken_and_nothing_changes(shop: ApiShop, log: Reach) -> None:
    put(shop, "wim", hidden_brands=["before"])
    with log.away():
        answer = shop.client.put("/user_profile/wim/preferences", json={"hidden_brands": ["after"]})
        problem_of(answer, 503)
        assert answer.headers["retry-after"]
        assert got(shop, "wim")["preferences"]["hidden_brands"] == ["before"]
    shop.seconds.ahead += CIRCUIT_S
    put(shop, "wim", hidden_brands=["after"])
    assert got(shop, "wim")["preferences"]["hidden_brands"] == ["after"]
