"""DELETE /user_profile/{user_id}: no page knows her from then on, and who comes later is a new user."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from local.embedded import EmbeddedServers
from shared.adapters.keys import user_key
from shared.adapters.redis_releases import USERS
from shared.events import keyed_user
from shared.features.shard import UserShard
from shared.features.state import EMPTY_AT
from shared.ingest.erasures import HOUR_MS, STORES, read_receipt
from shared.ingest.lake import LakeManifest, ShopSettings, write_manifest
from tests.integration.api_shop import RELEASE, ApiShop, behaviour, indexes, open_shop, problem_of

USER = "olivia-the-erased"
OTHER = "another-user"


@contextmanager
def shop_of(servers: EmbeddedServers, folder: Path, *, first: bool = True, **settings: str) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, folder, stocked=first, **settings) as shop:
        if first:
            write_manifest(shop.blobs, LakeManifest(version=1, shop=ShopSettings()))
        shop.services.refresh()
        yield shop


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with shop_of(servers, tmp_path) as opened:
        yield opened


def erase(shop: ApiShop, user_id: str = USER) -> str:
    answer = shop.client.delete(f"/user_profile/{user_id}")
    assert answer.status_code == 202, answer.text
    receipt: str = answer.json()["receipt"]
    assert answer.headers["location"] == f"/erasures/{receipt}"
    return receipt


def lines(shop: ApiShop, receipt: str) -> dict[str, dict[str, Any]]:
    report = shop.get(f"/erasures/{receipt}")
    found = {one["store"]: one for one in report["stores"]}
    assert set(found) == set(STORES)
    assert all((one["done_at"] is None) != (one["due_at"] is None) for one in found.values())
    assert all(len(one["detail"]) > 20 for one in found.values())
    return found


def done(shop: ApiShop, receipt: str) -> set[str]:
    return {name for name, line in lines(shop, receipt).items() if line["done_at"] is not None}


def stored_shards(client: Redis, shop: ApiShop, user_id: str = USER) -> dict[str, UserShard]:
    """Every shard of hers in Redis, by key, whatever the source, partition and version."""
    key = user_key(user_id, shop.settings.user_key_secret).hex()
    names = [name.decode() for name in client.scan_iter(f"*:u:*:{key}")]
    return {name: UserShard.decode(client.get(name)) for name in names}  # type: ignore[arg-type] # a key that was just listed holds bytes


def assert_unknown(shop: ApiShop, user_id: str = USER) -> None:
    profile = shop.get(f"/user_profile/{user_id}")
    assert not profile["known"]
    assert not profile["recent_history"]
    assert profile["preferences"] is None
    assert profile["features"] == shop.get("/user_profile/nobody-ever")["features"]
    page, strangers = shop.page(user_id), shop.page("nobody-ever")
    assert page["fallback"] == {"cause": "new_user"}
    assert indexes(page) == indexes(strangers)


def prefer(shop: ApiShop, **changes: Any) -> None:
    shop.post({
        "event_id": uuid.uuid4().hex, "event_type": "preferences_set", "user_id": USER,
        "occurred_at": datetime.now(UTC).isoformat(), "changes": changes,
    })  # fmt: skip


def test_from_the_next_request_on_no_worker_knows_her(
    servers: EmbeddedServers, tmp_path: Path, state_client: Redis
) -> None:
    with shop_of(servers, tmp_path) as shop, shop_of(servers, tmp_path, first=False) as second:
        for place in (3, 4, 5):
            shop.click(USER, place)
        prefer(shop, hidden_brands=["Brand 1"])
        assert second.get(f"/user_profile/{USER}")["known"]
        assert second.page(USER)["fallback"] is None
        receipt = erase(shop)
        for each in (shop, second):
            each.services.follower.follow()
            assert_unknown(each)
        assert "overlay" in done(second, receipt)
        assert "state" not in done(second, receipt), "nothing was folded yet"
        assert all(shard.erased_at == EMPTY_AT for shard in stored_shards(state_client, shop).values())
        shop.settle()
        shop.services.sealer.run()
        for each in (shop, second):
            assert_unknown(each)
        assert {"state", "overlay", "nightly_record", "landing", "broker_log"} <= done(second, receipt)
        shards = stored_shards(state_client, shop)
        assert {shard.state.newest_at for shard in shards.values()} == {EMPTY_AT}
        assert all(state_client.pttl(name) == -1 for name in shards), "tombstones never expire"
        assert sum(len(shard.accepted.known) for shard in shards.values()) == 5, "four events of hers and the erasure"
        late = behaviour(USER, 9, occurred_at="2026-01-01T00:00:00Z")
        shop.post(late)
        shop.settle()
        assert_unknown(shop)
        shop.click(USER, 100)
        profile = second.get(f"/user_profile/{USER}")
        assert profile["known"]
        assert [one["item_id"] for one in profile["recent_history"]] == ["sku-0100"]
        assert profile["preferences"] is None


def test_nobody_learns_who_exists(shop: ApiShop, state_client: Redis) -> None:
    shop.click(USER, 3)
    answers = [shop.client.delete(f"/user_profile/{user_id}") for user_id in (USER, "never seen", USER)]
    receipts = [answer.json()["receipt"] for answer in answers]
    assert {answer.status_code for answer in answers} == {202}
    assert len({tuple(answer.json()) for answer in answers}) == 1
    assert len(set(receipts)) == 3
    assert all(len(bytes.fromhex(receipt)) == 16 for receipt in receipts)
    reports = [lines(shop, receipt) for receipt in receipts]
    told = [{name: line["done_at"] is not None for name, line in report.items()} for report in reports]
    assert told[0] == told[1] == told[2]
    shop.settle()
    assert_unknown(shop)
    shop.services.sealer.run()
    assert {"state", "landing", "nightly_record"} <= done(shop, receipts[0])
    for forged in ("0" * 32, receipts[0].upper(), receipts[0][:-1], "..", "x" * 500):
        problem_of(shop.client.get(f"/erasures/{forged}"), 404)


def content(client: Redis, name: bytes) -> object:
    kind = client.type(name)
    reads: dict[Any, Any] = {b"string": client.get, b"hash": client.hgetall, b"stream": client.xrange}
    return reads[kind](name)


def test_the_id_stands_nowhere_in_what_an_erasure_writes(shop: ApiShop, log_client: Redis, state_client: Redis) -> None:
    receipt = erase(shop)
    for client in (log_client, state_client):
        for name in client.scan_iter():
            assert USER.encode() not in name
            assert USER not in repr(content(client, name))
    shop.settle()
    shop.services.sealer.run()
    for path in Path(shop.settings.blob_url).rglob("*"):
        assert USER not in str(path)
        data = path.read_bytes() if path.is_file() else b""
        assert USER.encode() not in (gzip.decompress(data) if path.suffix == ".gz" else data)
    held = read_receipt(shop.blobs, receipt)
    assert held is not None
    assert held.user_key == user_key(USER, shop.settings.user_key_secret).hex()
    assert held.subject == keyed_user(held.user_key)


def test_an_erasure_is_not_posted_as_an_event(shop: ApiShop) -> None:
    event = {"event_id": "e", "event_type": "user_erased", "occurred_at": "2026-11-23T08:30:00Z"}
    for form in ({"user_id": USER}, {"changes": {"user_key": "a" * 32, "receipt": "b" * 32}}):
        answer = problem_of(shop.client.post("/events", json=[event | form]), 422)
        assert "DELETE /user_profile/{user_id}" in answer["outcomes"][0]["reason"]


def test_her_record_leaves_every_release_and_the_releases_stay_whole(shop: ApiShop) -> None:
    key, other = (user_key(one, shop.settings.user_key_secret) for one in (USER, OTHER))
    for release in ("r-old", "r-coming"):
        shop.releases.begin(release, user_count=64, item_count=1)
    everywhere = (RELEASE, "r-old", "r-coming")
    for release in everywhere:
        shop.releases.write_lists(release, USERS, {key: b"hers", other: b"another's"})
    counted = [shop.releases.count_lists(release)[USERS] for release in everywhere]
    receipt = erase(shop)
    assert shop.releases.nightly_records(RELEASE, [key, other]) == [None, b"another's"], "what serves, at once"
    assert "nightly_record" not in done(shop, receipt)
    shop.settle()
    shop.services.sealer.run()
    assert [shop.releases.nightly_records(release, [key, other]) for release in everywhere] == [
        [None, b"another's"] for _ in everywhere
    ]
    assert "nightly_record" in done(shop, receipt)
    assert [shop.releases.count_lists(release)[USERS] for release in everywhere] == counted
    shop.releases.write_lists(RELEASE, USERS, {key: b"made before the erasure, written after it"})
    shop.clock.at = shop.services.clock() + 2 * HOUR_MS
    shop.services.sealer.run()
    assert shop.releases.nightly_records(RELEASE, [key]) == [None], "as long as the receipt is open, this is looked at"
