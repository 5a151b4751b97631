"""POST /events event by event, and what every endpoint refuses: always as a problem with a clear text, never a 500."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis import Redis

from functions.api.app import create_app
from functions.bootstrap import Services
from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import PartitionKeys
from shared.errors import ConfigurationError
from shared.events import MAX_EVENT_BYTES, event_from_fields, partition_of
from shared.ingest.lake import ShopSettings, publish_history
from shared.ingest.lake_table import unnumbered_table
from tests.integration.api_shop import ApiShop, behaviour, item_update, open_shop, problem_of


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


# /events


def test_each_event_has_its_own_outcome(shop: ApiShop) -> None:
    good, late = behaviour("ida", 5), behaviour("ida", 6, occurred_at="2999-01-01T00:00:00Z")
    batch = [
        good,
        {**behaviour("ida", 5), "event_type": "purchase", "item_id": None},
        {**behaviour("ida", 5), "quantity": "two"},
        {**behaviour("ida", 5), "user_id": "a/b"},
        {**behaviour("ida", 5), "item_id": "nul\0"},
        {**behaviour("ida", 5), "user_id": ".."},
        {"event_type": "view"},
        late,
        7,
    ]
    answer = shop.client.post("/events", json={"events": batch})
    assert answer.status_code == 202
    told = answer.json()
    assert (told["accepted"], told["rejected"]) == (1, 8)
    assert [one["outcome"] for one in told["outcomes"]] == ["accepted"] + ["rejected"] * 8
    assert told["outcomes"][0]["event_id"] == good["event_id"]
    reasons = [one["reason"] for one in told["outcomes"][1:]]
    for reason, part in zip(
        reasons, ["item_id", "quantity", "user_id", "item_id", "user_id", "event_id", "24 h", "object"], strict=True
    ):
        assert part in reason
    shop.settle()
    assert len(shop.get("/user_profile/ida")["recent_history"]) == 1


def test_the_api_writes_no_state_and_a_repeated_event_counts_once(shop: ApiShop, state_client: Redis) -> None:
    before = state_client.dbsize()
    event = behaviour("jo", 9)
    shop.post(event)
    shop.post(event)
    assert state_client.dbsize() == before
    shop.settle()
    assert shop.get("/user_profile/jo")["features"]["user_view_count_ever"] == 1


def test_a_batch_without_a_valid_event_is_refused_with_the_reasons(shop: ApiShop) -> None:
    problem = problem_of(shop.client.post("/events", json=[{"event_id": "x"}]), 422)
    assert problem["outcomes"][0]["outcome"] == "rejected"
    bodies: tuple[Any, ...] = ([], {"events": []}, {"events": [], "more": 1}, "text", 7, {"events": {}})
    for body in bodies:
        problem_of(shop.client.post("/events", json=body), 422)
    many = [behaviour("kim", 1) for _ in range(501)]
    assert "500" in problem_of(shop.client.post("/events", json=many), 422)["detail"]
    assert shop.client.post("/events", json=many[:500]).status_code == 202


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,", b"\xff\xfe", b'[{"a": "\xff"}]', b"[" * 100_000, b'{"events":' * 10_000, b"nonsense", b"\0"],
    ids=["empty", "open", "cut", "bytes", "latin", "deep", "deeper", "word", "nul"],
)
def test_bad_json_is_refused_and_never_an_error_of_ours(shop: ApiShop, body: bytes) -> None:
    answer = shop.client.post("/events", content=body)
    assert answer.status_code in {400, 422}
    problem_of(answer, answer.status_code)


@pytest.mark.parametrize("envelope", ["[%s, %s]", '{"events": [%s, %s]}'])
def test_text_that_is_no_text_refuses_the_event_that_holds_it_alone(shop: ApiShop, envelope: str) -> None:
    good, bad = behaviour("noa", 5), json.dumps(behaviour("noa", 5)).replace("noa", "noa" + chr(92) + "ud800")
    told = shop.client.post("/events", content=envelope % (json.dumps(good), bad)).json()
    assert [one["outcome"] for one in told["outcomes"]] == ["accepted", "rejected"]
    assert told["outcomes"][0]["event_id"] == good["event_id"]
    for body in (
        '["%sud800", NaN]',
        '{"events": ["%sud800"], "more": 1}',
        '{"more": "%sud800"}',
        '"%sud800"',
        '["%sud8',
    ):
        answer = shop.client.post("/events", content=body % chr(92))
        assert answer.status_code in {400, 422}
        problem_of(answer, answer.status_code)


def test_an_event_that_is_nested_too_deeply_is_rejected(shop: ApiShop) -> None:
    deep = json.dumps(behaviour("lee", 1, "item_updated")).replace('"sku-0001"', '"sku-0001", "changes": {"x": HERE}')
    body = "[" + deep.replace("HERE", "[" * 5000 + "]" * 5000) + "]"
    problem_of(shop.client.post("/events", content=body), 422)


def test_a_body_beyond_the_limit_is_refused_also_without_its_length(shop: ApiShop) -> None:
    large = b"[" + b" " * 10_000_000 + b"]"
    assert "1048576" in problem_of(shop.client.post("/events", content=large), 413)["detail"]

    def parts() -> Iterator[bytes]:
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    problem_of(shop.client.post("/events", content=parts()), 413)
    assert shop.client.post("/events", json=[behaviour("mia", 3)]).status_code == 202


# Errors


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/items/sku-unknown", 404),
        ("/similar_items/sku-unknown", 404),
        ("/bought_together/sku-unknown", 404),
        ("/recommend/ann?context_item=sku-unknown", 404),
        ("/nothing", 404),
        ("/", 404),
        ("/recommend/", 404),
        ("/recommend/a%2Fb", 404),
        ("/items/..%2F..%2Fetc%2Fpasswd", 404),
        ("/recommend/ann?limit=0", 422),
        ("/recommend/ann?limit=101", 422),
        ("/recommend/ann?limit=ten", 422),
        ("/recommend/ann?limit=", 422),
        ("/recommend/ann?limit=1e400", 422),
        ("/recommend/ann?explain=perhaps", 422),
        ("/recommend/ann?category=", 422),
        ("/recommend/ann?context_item=a%00b", 422),
        ("/recommend/ann?exclude=a%01", 422),
        ("/recommend/ann?exclude=" + ",".join(["x"] * 501), 422),
        ("/recommend/a%00b", 422),
        ("/recommend/%7Bx%7D", 422),
        ("/items/%7Bx%7D", 422),
        ("/similar_items/a%0Ab", 422),
        ("/recommend/" + "x" * 129, 422),
        ("/recommend/%ff", 422),
        ("/items?page=0", 422),
        ("/items?page=99999999999999999999", 422),
        ("/popular?limit=1000", 422),
    ],
)
def test_what_makes_no_sense_is_answered_with_a_clear_problem(shop: ApiShop, path: str, status: int) -> None:
    problem_of(shop.client.get(path), status)


def test_dots_as_an_id_are_refused(shop: ApiShop) -> None:
    for path in ("/recommend/..", "/items/.", "/user_profile/%2E%2E"):
        scope_path = path.replace("%2E", ".")
        answer = shop.client.request("GET", "http://testserver/x", extensions={"target": scope_path.encode()})
        assert answer.status_code in {404, 422}
        problem_of(answer, answer.status_code)


def test_a_wrong_method_says_which_are_offered(shop: ApiShop) -> None:
    answer = shop.client.delete("/events")
    problem_of(answer, 405)
    assert "POST" in answer.headers["allow"]
    problem_of(shop.client.post("/recommend/ann"), 405)


def test_a_fault_of_ours_is_a_problem_too_and_tells_nothing_of_the_inside(shop: ApiShop) -> None:
    shop.services.catalog._releases = None  # type: ignore[assignment]  # breaks the code on purpose
    problem = problem_of(shop.client.get("/popular"), 500)
    assert "NoneType" not in json.dumps(problem)
    assert 'recommndr_http_requests_total{route="/popular",status="500"} 1.0' in shop.client.get("/metrics").text


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_fault_of_ours(
    shop: ApiShop, caplog: pytest.LogCaptureFixture
) -> None:
    scope = {"type": "http", "method": "POST", "path": "/events", "query_string": b"", "headers": []}
    coming = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"[", "more_body": True}]

    async def receive() -> Any:
        return coming.pop()

    async def send(_message: Any) -> None:
        return

    async def request() -> None:
        await shop.client.app(scope, receive, send)

    asyncio.run(request())
    assert not caplog.records
    assert 'recommndr_http_requests_total{route="/events",status="400"} 1.0' in shop.client.get("/metrics").text


def test_before_the_first_release_the_answer_says_what_to_do(servers: EmbeddedServers, tmp_path: Path) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path, stocked=False) as empty:
        empty.services.refresh()
        for path in ("/recommend/ann", "/popular", "/items", "/user_profile/ann", "/similar_items/x"):
            answer = empty.client.get(path)
            assert "nightly" in problem_of(answer, 503)["detail"]
            assert answer.headers["retry-after"]
        assert empty.client.post("/events", json=[behaviour("ann", 1)]).status_code == 202
        assert empty.client.get("/health/live").status_code == 200
        checks = {one["name"]: one["ok"] for one in problem_of(empty.client.get("/health/ready"), 503)["checks"]}
        assert not checks["release"]
        assert checks["broker_log"]
        assert checks["feature_state"]


def test_a_lake_with_events_and_a_redis_without_anything_names_the_command_that_brings_it_back(
    servers: EmbeddedServers, tmp_path: Path
) -> None:
    event = event_from_fields(behaviour("ann", 1))
    publish_history(FolderBlobStore(tmp_path), "history-0", 4, ShopSettings(), [unnumbered_table([event])])
    with open_shop(servers.state_url, servers.log_url, tmp_path, stocked=False) as empty:
        empty.services.refresh()
        checks = {one["name"]: one for one in problem_of(empty.client.get("/health/ready"), 503)["checks"]}
        assert not checks["state_rebuilt"]["ok"]
        assert "local.rebuild_state" in checks["state_rebuilt"]["detail"]


def test_settings_that_make_no_sense_are_told_and_another_origin_may_be_allowed(shop: ApiShop) -> None:
    def broken() -> Services:
        raise ConfigurationError("PARTITION_COUNT must be a whole number from 1 to 1024")

    with_broken_settings = TestClient(create_app(broken, lambda: None), raise_server_exceptions=False)
    assert "PARTITION_COUNT" in problem_of(with_broken_settings.get("/popular"), 500)["detail"]
    assert with_broken_settings.get("/health/live").status_code == 200

    origin = {"Origin": "https://shop.example"}
    open_to_shop = TestClient(create_app(lambda: shop.services, lambda: None, ("https://shop.example",)))
    assert open_to_shop.get("/popular", headers=origin).headers["access-control-allow-origin"] == "https://shop.example"
    refused = open_to_shop.post("/events", content=b"[" + b" " * 2_000_000, headers=origin)
    assert refused.status_code == 413
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in shop.client.get("/popular", headers=origin).headers


def test_an_event_that_grows_beyond_the_limit_when_written_out_is_refused_and_not_buried(shop: ApiShop) -> None:
    """Numbers may be posted shorter than they are written; what is acknowledged must be what the fold takes."""
    changes = {"title": "\N{CLINKING BEER MUGS}" * 4000, "attributes": {f"k{number}": 1e15 for number in range(50)}}
    event = item_update(3, **changes, description="")
    body = json.dumps([event], ensure_ascii=False).replace("1000000000000000.0", "1e15")
    room = MAX_EVENT_BYTES - len(body.encode()) - 10
    answer = shop.client.post("/events", content=body.replace('"description": ""', f'"description": "{"d" * 3999}"'))
    assert answer.status_code == 202, "a long one that fits"
    full = body.replace('"description": ""', f'"description": "{"\N{CLINKING BEER MUGS}" * (room // 4)}"')
    assert len(full.encode()) <= MAX_EVENT_BYTES
    outcome = problem_of(shop.client.post("/events", content=full), 422)["outcomes"][0]
    assert "written out" in outcome["reason"]


LOST = "unacknowledged"


def test_what_only_a_part_of_the_broker_log_takes_is_told_event_by_event(shop: ApiShop, log_client: Redis) -> None:
    """The other events are in: sent again with the same ids they count once."""
    events = [behaviour(f"u-{number}", 1) for number in range(40)]
    broken = partition_of("u-0", shop.settings.partition_count)
    key = PartitionKeys("live-1", broken).broker_log
    log_client.rename(key, f"{key}-aside")
    log_client.set(key, "no stream")
    answer = shop.client.post("/events", json=events)
    told = problem_of(answer, 503)
    assert answer.headers["retry-after"]
    assert told["type"].endswith(":partly_acknowledged")
    lost = [partition_of(event["user_id"], shop.settings.partition_count) == broken for event in events]
    assert [one["outcome"] for one in told["outcomes"]] == [LOST if one else "accepted" for one in lost]
    assert [one["event_id"] for one in told["outcomes"]] == [event["event_id"] for event in events]
    assert (told["accepted"], told["rejected"], told[LOST]) == (40 - sum(lost), 0, sum(lost))

    mixed = shop.client.post("/events", json=[events[0], {"event_id": "wrong"}, events[lost.index(False)]])
    assert [one["outcome"] for one in problem_of(mixed, 503)["outcomes"]] == [LOST, "rejected", "accepted"]
    for _ in range(3):
        nobody = shop.client.post("/events", json=[events[0]])
        assert problem_of(nobody, 503)["type"].endswith(":broker_log_unavailable")
        fine = shop.client.post("/events", json=[events[lost.index(False)]])
        assert fine.status_code == 202, "one partition's refusal must not stop the others"
    assert shop.services.metrics.faults.labels("broker_log")._value.get() == 0

    log_client.rename(f"{key}-aside", key)
    assert shop.client.post("/events", json=events).json()["accepted"] == 40
    shop.settle()
    for number in range(40):
        assert shop.get(f"/user_profile/u-{number}")["features"]["user_view_count_ever"] == 1
