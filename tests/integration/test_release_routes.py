"""/releases over HTTP: what stands, what serves, moving traffic, and two who do it at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local.embedded import EmbeddedServers
from shared.adapters.activation import active_release
from shared.adapters.redis_releases import RedisReleaseStore
from tests.integration.api_shop import RELEASE, ApiShop, open_shop, problem_of, publish_release


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    """Three releases, the last one active; all went through the operator's own door."""
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        opened.releases.set_published([RELEASE])
        for number in (2, 3):
            publish_silently(opened, f"r-test-{number}")
            assert opened.client.post(f"/releases/r-test-{number}/activate").status_code == 200
        yield opened


def publish_silently(shop: ApiShop, release_id: str) -> None:
    """Bundle and lists, and no traffic; one list a user, as the night writes."""
    publish_release(shop.blobs, shop.releases, release_id, shop.settings)
    complete(shop, release_id)


def complete(shop: ApiShop, release_id: str) -> None:
    shop.releases.write_lists(release_id, "nightly", {bytes([number]) * 16: b"record" for number in range(64)})


def roles(shop: ApiShop) -> dict[str, str]:
    return {one["release_id"]: one["role"] for one in shop.get("/releases")["releases"]}


def test_the_list_and_one_of_it(shop: ApiShop) -> None:
    found = shop.get("/releases")
    assert [one["release_id"] for one in found["releases"]] == ["r-test-3", "r-test-2", "r-test-1"]
    assert roles(shop) == {"r-test-3": "active", "r-test-2": "rollback", "r-test-1": "none"}
    assert [one["weight"] for one in found["releases"]] == [1.0, 0.0, 0.0]
    assert [one["lists"] for one in found["releases"]] == ["kept", "kept", "expiring"]
    one = shop.get("/releases/r-test-3")
    assert (one["usable"], one["role"], one["items"], one["users"]) == (True, "active", 240, 64)
    assert one["allocation_version"] == found["allocation_version"] == 3
    assert set(one["files"]) >= {"ranker.onnx"}
    assert "unknown_release" in problem_of(shop.client.get("/releases/r-test-9"), 404)["type"]
    for path in ("/releases/..", "/releases/%2e%2e", "/releases/a%5Cb", f"/releases/{'x' * 65}"):
        assert shop.client.get(path).status_code in {404, 422}


def test_activating_moves_traffic_and_a_rollback_takes_it_back(shop: ApiShop) -> None:
    moved = shop.client.post("/releases/r-test-2/activate").json()
    assert (moved["release_id"], moved["before"], moved["allocation_version"]) == ("r-test-2", "r-test-3", 4)
    assert "next night" in moved["mlflow"]
    shop.services.refresh()
    assert shop.page("ann")["release"] == "r-test-2"
    late = shop.client.post("/releases/r-test-3/activate", params={"expected_version": 3})
    assert "allocation_moved" in problem_of(late, 409)["type"]
    back = shop.client.post("/releases/rollback", params={"expected_version": 4})
    assert back.json()["release_id"] == "r-test-3"
    again = shop.client.post("/releases/rollback", params={"expected_version": 4})
    assert "allocation_moved" in problem_of(again, 409)["type"]
    assert active_release(shop.releases) == "r-test-3", "the request that was sent twice moved once"


def test_back_to_the_first_and_no_further(shop: ApiShop) -> None:
    complete(shop, RELEASE)
    assert shop.client.post("/releases/rollback").json()["release_id"] == "r-test-2"
    assert shop.client.post("/releases/rollback").json()["release_id"] == RELEASE
    refused = problem_of(shop.client.post("/releases/rollback"), 409)
    assert "nothing to go back to" in refused["detail"]
    assert shop.releases.with_lists()[RELEASE] is False, "what serves does not expire"


@pytest.mark.parametrize("harm", ["file", "altered", "manifest", "lists"])
def test_a_broken_release_is_refused_and_what_works_stays(shop: ApiShop, harm: str) -> None:
    publish_silently(shop, "r-test-4")
    if harm == "file":
        shop.blobs.delete("releases/r-test-4/ranker.onnx")
    elif harm == "altered":
        shop.blobs.write("releases/r-test-4/ranker.onnx", b"other bytes")
    elif harm == "manifest":
        shop.blobs.write("releases/r-test-4/manifest.json", b"{")
    else:
        shop.releases.begin("r-test-4", user_count=64, item_count=9999)
        shop.blobs.write("releases/r-test-5/x", b"never finished")
        shop.releases.write_lists("r-test-4", "nightly", {b"other": b"record"})
    refused = problem_of(shop.client.post("/releases/r-test-4/activate"), 409)
    assert "unusable_release" in refused["type"]
    assert "r-test-4" in refused["detail"]
    assert active_release(shop.releases) == "r-test-3"
    assert shop.get("/releases")["allocation_version"] == 3
    assert shop.get("/releases/r-test-4")["usable"] is False
    assert (shop.get("/releases")["releases"][0]["fault"] is None) == (harm != "manifest")
    assert problem_of(shop.client.post("/releases/r-test-5/activate"), 404)
    assert shop.page("ann")["items"]


def test_of_two_at_once_one_moves_and_the_other_hears_of_it(shop: ApiShop) -> None:
    publish_silently(shop, "r-test-4")

    def activate(release_id: str) -> Any:
        return shop.client.post(f"/releases/{release_id}/activate", params={"expected_version": 3})

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(activate, ["r-test-4", "r-test-2"]))
    assert sorted(one.status_code for one in answers) == [200, 409]
    (won,) = [one.json() for one in answers if one.status_code == 200]
    assert (active_release(shop.releases), won["allocation_version"]) == (won["release_id"], 4)
    (lost,) = [one for one in answers if one.status_code == 409]
    assert "allocation_moved" in problem_of(lost, 409)["type"]


def test_what_another_activates_while_its_lists_are_retired_keeps_them(
    shop: ApiShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_silently(shop, "r-test-4")
    retire = RedisReleaseStore.retire
    begun: list[str] = []

    def meanwhile(store: RedisReleaseStore, release_id: str, ttl_ms: int) -> None:
        if release_id == "r-test-4" and not begun:
            begun.append(release_id)
            assert shop.client.post("/releases/r-test-4/activate").status_code == 200
        retire(store, release_id, ttl_ms)

    monkeypatch.setattr(RedisReleaseStore, "retire", meanwhile)
    assert shop.client.post("/releases/r-test-2/activate").status_code == 200
    assert begun
    assert active_release(shop.releases) == "r-test-4"
    assert shop.releases.with_lists()["r-test-4"] is False


def test_without_redis_it_is_503(servers: EmbeddedServers, tmp_path: Path) -> None:
    away = f"unix://{tmp_path}/nothing.sock"
    with open_shop(away, servers.log_url, tmp_path, stocked=False) as shop:
        assert problem_of(shop.client.get("/releases"), 503)
        assert problem_of(shop.client.get("/dead_letters"), 503)
        assert problem_of(shop.client.post("/releases/rollback"), 503)
