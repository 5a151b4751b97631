"""Run by test_functions_runtime.py inside the bare environment, on a shop that test has made: servers, folder, release.

Not collected with the other tests: its name begins with no `test_`. It calls every function of function_app.py through
Microsoft's runtime.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from shared.adapters.keys import PartitionKeys, user_key
from shared.adapters.redis_connection import connect
from shared.adapters.redis_log import RedisEventLog
from shared.adapters.redis_state import RedisStateStore
from shared.events import from_ms, partition_of
from shared.features.definitions import STATE_VERSION
from shared.features.shard import UserShard
from shared.settings import Settings
from tests.contract.asgi_caller import call_asgi
from tests.contract.runtime_host import (
    EVENT_HUB,
    HTTP,
    TIMER,
    Answer,
    HubEvent,
    InvocationFailed,
    Request,
    RuntimeHost,
)

ROOT = Path(__file__).resolve().parents[2]
JSON = {"Content-Type": "application/json"}
FIRST_REQUESTS = 8


def posted(*events: dict[str, Any]) -> Request:
    return Request("post_events", "/events", "POST", json.dumps(events).encode(), JSON)


def view(user_id: str, item_id: str = "sku-0003", **fields: Any) -> dict[str, Any]:
    return {
        "event_id": uuid.uuid4().hex,
        "event_type": "view",
        "occurred_at": datetime.now(UTC).isoformat(),
        "user_id": user_id,
        "item_id": item_id,
        **fields,
    }


@dataclass(frozen=True)
class Case:
    """A request and the status it must have; `same` says what of two bodies must be equal."""

    name: str
    request: Request
    status: int
    same: Callable[[bytes], object] = bytes


def case(function: str, target: str, status: int = 200, **more: Any) -> Case:
    return Case(f"{function}: {target}", Request(function, target, **more), status)


LAMP = {"title": "Brass lamp", "price_cents": 4500}
ITEMS = json.dumps({"items": [{"item_id": "lamp", "stock": 1}, {"item_id": "lamp", "stock": "1"}]}).encode()


def written(function: str, method: str, body: dict[str, Any] | None, status: int = 202) -> Case:
    content = b"" if body is None else json.dumps(body).encode()
    target = "/items/l%C3%A4mp?occurred_at=2026-11-01T00:00:00Z"
    return Case(f"{function}: {status}", Request(function, target, method, content, JSON), status)


def wished(body: dict[str, Any], status: int = 202) -> Case:
    target = "/user_profile/z%C3%BCrich/preferences"
    request = Request("put_preferences", target, "PUT", json.dumps(body).encode(), JSON)
    return Case(f"put_preferences: {status}", request, status)


def metric_names(body: bytes) -> object:
    return re.findall(rb"^# TYPE (\S+ \S+)$", body, re.MULTILINE)


def field_names(body: bytes) -> object:
    """Of an answer that never comes twice."""
    return list(json.loads(body))


HTTP_CASES = [
    case("recommend", "/recommend/crowd-1?limit=5&explain=true"),
    case("recommend", "/recommend/nobody-yet"),
    case("recommend", "/recommend/z%C3%BCrich%20%2B%25?limit=3&exclude=sku-0003&exclude=sku-0006,sku-0009"),
    case("recommend", "/recommend/crowd-1?limit=0", 422),
    case("recommend", "/recommend/crowd-1?category=Category%200&context_item=sku-0003&limit=4"),
    case("recommend", "/recommend/a%2Fb", 404),
    case("recommend", "/recommend/a%00b", 422),
    case("recorded_recommendation", f"/recommendations/r-1.{'0' * 32}", 404),
    case("recorded_recommendation", "/recommendations/r-1.0", 422),
    case("similar_items", "/similar_items/sku-0003?limit=4"),
    case("similar_items", "/similar_items/sku-none", 404),
    case("bought_together", "/bought_together/sku-0003"),
    case("bought_together", "/bought_together/sku-none", 404),
    case("search", "/search?q=prodcut%2012&user_id=crowd-1&limit=3&sort=relevance"),
    case("search", "/search?q=%22&cursor=AAAA", 422),
    case("get_item", "/items/sku-0003"),
    case("get_item", "/items/sku-none", 404),
    case("list_items", "/items?category=Category%201&page=1"),
    case("list_items", "/items?page=nought", 422),
    case("categories", "/categories"),
    written("put_item", "PUT", LAMP),
    written("put_item", "PUT", {"title": "no price"}, 422),
    written("patch_item", "PATCH", {"stock": 3}),
    written("patch_item", "PATCH", {}, 422),
    written("delete_item", "DELETE", None),
    Case("post_items", Request("post_items", "/items:batch", "POST", ITEMS, JSON), 202),
    Case("post_items: none", Request("post_items", "/items:batch", "POST", b'{"items": []}', JSON), 422),
    case("popular", "/popular?limit=3"),
    case("popular", "/popular?limit=101", 422),
    case("user_profile", "/user_profile/crowd-1"),
    case("user_profile", "/user_profile/z%C3%BCrich%20%2B%25'@"),
    case("user_profile", "/user_profile/" + "x" * 129, 422),
    wished({"hidden_brands": ["Acme"], "personalised": False}),
    wished({"min_price_cents": 2, "max_price_cents": 1}, 422),
    case("get_preferences", "/user_profile/crowd-1/preferences"),
    Case("delete_user_profile", Request("delete_user_profile", "/user_profile/forgotten", "DELETE"), 202, field_names),
    case("delete_user_profile", "/user_profile/" + "x" * 129, 422, method="DELETE"),
    case("erasure", f"/erasures/{'0' * 32}", 404),
    Case("post_events: one good, one bad", posted(view("poster-1"), {"event_id": "no type"}), 202),
    Case("post_events: none good", posted({"event_id": "no type"}), 422),
    Case("post_events: no JSON", Request("post_events", "/events", "POST", b"{", JSON), 400),
    Case("post_events: 2 MB", Request("post_events", "/events", "POST", b"[" + b" " * 2**21, JSON), 413),
    case("list_releases", "/releases"),
    case("get_release", "/releases/r-test-9", 404),
    case("activate_release", "/releases/r-test-9/activate", 404, method="POST"),
    case("roll_back", "/releases/rollback", 409, method="POST"),
    case("list_dead_letters", "/dead_letters?limit=5"),
    case("get_dead_letter", "/dead_letters/live-1/0/0", 404),
    case("replay_dead_letter", "/dead_letters/live-1/0/0/replay", 404, method="POST"),
    Case("replay_dead_letters", Request("replay_dead_letters", "/dead_letters/replay", "POST", b"{}", JSON), 422),
    case("health_live", "/health/live"),
    case("health_ready", "/health/ready"),
    Case("metrics: /metrics", Request("metrics", "/metrics"), 200, metric_names),
    case("openapi", "/openapi.json"),
    case("swagger_ui_html", "/docs"),
    case("swagger_ui_redirect", "/docs/oauth2-redirect"),
]
EVENT_FUNCTION, TIMER_FUNCTION = "process_events", "seal_lake"


@dataclass(frozen=True)
class Worker:
    """The runtime with the application in it, the servers behind it, and how often services were composed."""

    host: RuntimeHost
    app: Any
    settings: Settings
    state: Redis
    log: RedisEventLog
    first_answers: list[Answer]
    compositions: int

    def keys(self, user_id: str) -> PartitionKeys:
        return PartitionKeys(self.settings.event_source, self.partition(user_id))

    def partition(self, user_id: str) -> int:
        return partition_of(user_id, self.settings.partition_count)

    def shard(self, user_id: str) -> bytes | None:
        keyed = user_key(user_id, self.settings.user_key_secret)
        found: Any = self.state.get(self.keys(user_id).user(STATE_VERSION, keyed))
        return None if found is None else bytes(found)

    def mark(self, user_id: str) -> bytes:
        found: Any = self.state.get(self.keys(user_id).log_mark)
        assert found is not None
        return bytes(found)

    def everything(self) -> dict[bytes, Any]:
        return {key: self.state.dump(key) for key in self.state.scan_iter()}

    def append(self, *events: dict[str, Any]) -> None:
        """Through POST /events into the broker log."""
        answer = self.host.http(posted(*events))
        assert answer.status == 202, answer.body
        assert answer.json()["accepted"] == len(events)

    def unfolded(self, user_id: str, *, instant: Callable[[int], str]) -> list[HubEvent]:
        """What the broker log holds of the user's partition above the mark, as an event hub would hand it over."""
        partition = self.partition(user_id)
        found = self.log.read(partition, int(self.mark(user_id).partition(b":")[0]), 500)
        return [HubEvent(one.sequence, instant(one.enqueued_at), one.body) for one in found]


def dotnet_instant(at: int) -> str:
    """A DateTime of kind Unspecified, which DateTimeOffset.DateTime gives: UTC by its name alone, no trailing zeros."""
    fraction = f".{at % 1000:03d}".rstrip("0").rstrip(".")
    return f"{from_ms(at):%Y-%m-%dT%H:%M:%S}{fraction}"


def utc_instant(at: int) -> str:
    """A DateTime of kind Utc, as extensions before version 5 sent it."""
    return dotnet_instant(at) + "Z"


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    settings = Settings.from_environment(os.environ)
    with pytest.MonkeyPatch.context() as patch, closing(connect(settings.redis_url)) as state:
        composed = fix_clock_and_ids(patch)
        with closing(connect(settings.event_log_url)) as log_client, RuntimeHost(ROOT) as host:
            import function_app  # the runtime has imported it; so it is the same module here

            assert not composed, "indexing must connect nothing"
            answers = host.http_together([Request("health_ready", "/health/ready")] * FIRST_REQUESTS)
            log = RedisEventLog(log_client, settings.event_source, settings.partition_count)
            yield Worker(host, function_app.api, settings, state, log, answers, len(composed))
            for services in composed:
                services.close()


def fix_clock_and_ids(patch: pytest.MonkeyPatch) -> list[Any]:
    """The worker composes its services with a clock that stands and one id; returns what it will have composed."""
    from functions import bootstrap

    now = time.time_ns() // 1_000_000
    composed: list[Any] = []
    plain = bootstrap.compose

    def compose(settings: Settings) -> Any:
        composed.append(plain(settings, clock=lambda: now, new_id=partial(str.__mul__, "0", 32)))
        return composed[-1]

    patch.setattr(bootstrap, "compose", compose)
    return composed


def test_every_function_that_the_runtime_indexed_has_a_case(worker: Worker) -> None:
    covered = {one.request.function for one in HTTP_CASES} | {EVENT_FUNCTION, TIMER_FUNCTION}
    assert covered == set(worker.host.functions)


def test_every_route_of_the_api_is_a_function_of_its_own(worker: Worker) -> None:
    http = {name: one.trigger for name, one in worker.host.functions.items() if one.kind == HTTP}
    served = {(f"/{one['route']}", method) for one in http.values() for method in one["methods"]}
    document = call_asgi(worker.app, Request("openapi", "/openapi.json")).json()
    declared = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert declared <= served
    assert served - declared == {(path, "GET") for path in ("/openapi.json", "/docs", "/docs/oauth2-redirect")}
    assert all("authLevel" in one for one in http.values())


def test_the_host_puts_no_prefix_before_the_routes() -> None:
    host = json.loads((ROOT / "host.json").read_text())
    assert host["extensions"]["http"]["routePrefix"] == ""


def test_triggers_are_declared_as_the_python_model_needs_them(worker: Worker) -> None:
    events, timer = (worker.host.functions[name] for name in (EVENT_FUNCTION, TIMER_FUNCTION))
    assert (events.kind, timer.kind) == (EVENT_HUB, TIMER)
    assert events.trigger["cardinality"].upper() == "MANY"
    assert events.trigger["dataType"].upper() == "BINARY"
    assert events.retry.max_retry_count == -1, "an infrastructure fault makes the partition wait, however long"
    assert events.retry.retry_strategy == "exponential_backoff"
    assert events.outputs == timer.outputs == ()


def test_the_first_requests_compose_the_services_once(worker: Worker) -> None:
    assert [one.status for one in worker.first_answers] == [200] * FIRST_REQUESTS, worker.first_answers[0].body
    assert worker.compositions == 1


@pytest.mark.parametrize("one", HTTP_CASES, ids=lambda one: one.name)
def test_the_runtimes_answer_is_the_applications(worker: Worker, one: Case) -> None:
    through_runtime = worker.host.http(one.request)
    own = call_asgi(worker.app, one.request)
    assert own.status == one.status, own.body
    assert through_runtime.status == own.status
    assert one.same(through_runtime.body) == one.same(own.body)
    lengths = set[str]() if one.same is bytes else {"content-length", "location"}
    assert without(through_runtime, lengths) == without(own, lengths)
    if own.status >= 400:
        assert own.headers["content-type"] == "application/problem+json"
        assert own.json()["status"] == own.status


def without(answer: Answer, names: set[str]) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in names}


def test_a_page_has_what_the_shop_published(worker: Worker) -> None:
    page = worker.host.http(Request("recommend", "/recommend/crowd-1?limit=5")).json()
    assert len(page["items"]) == 5
    assert page["fallback"] is None
    assert page["candidates"] > 20


@pytest.mark.parametrize("instant", [dotnet_instant, utc_instant])
def test_an_event_hubs_batch_changes_redis_and_once_only(worker: Worker, instant: Callable[[int], str]) -> None:
    user = f"visitor-{instant.__name__}"
    worker.append(view(user), view(user, "sku-0004"))
    before = worker.mark(user)
    assert worker.shard(user) is None
    batch = worker.unfolded(user, instant=instant)
    worker.host.event_batch(EVENT_FUNCTION, batch, partition=str(worker.partition(user)))
    after = worker.mark(user)
    assert after != before
    stored = worker.shard(user)
    assert stored is not None
    shard = UserShard.decode(stored)
    assert shard.sequence == batch[-1].sequence
    everything = worker.everything()
    worker.host.event_batch(EVENT_FUNCTION, batch, partition=str(worker.partition(user)))
    assert worker.everything() == everything
    profile = worker.host.http(Request("user_profile", f"/user_profile/{user}")).json()
    assert profile["known"]
    assert {one["item_id"] for one in profile["recent_history"]} == {"sku-0003", "sku-0004"}


def test_instants_and_bodies_arrive_to_the_millisecond_and_byte(worker: Worker) -> None:
    user = "visitor-of-landing"
    worker.append(view(user, context={"ref": "ünïcode"}))
    batch = worker.unfolded(user, instant=utc_instant)
    worker.host.event_batch(EVENT_FUNCTION, batch, partition=str(worker.partition(user)))
    sequence, partition = batch[-1].sequence, worker.partition(user)
    store = RedisStateStore(worker.state, worker.settings.user_key_secret)
    (row,) = store.landing_rows(worker.settings.event_source, partition, sequence, sequence)
    (expected,) = worker.log.read(partition, sequence - 1, 1)
    assert (row.body, row.enqueued_at) == (batch[-1].body, expected.enqueued_at)


def test_a_batch_without_its_partition_is_refused(worker: Worker) -> None:
    user = "visitor-from-nowhere"
    worker.append(view(user))
    everything = worker.everything()
    batch = worker.unfolded(user, instant=utc_instant)
    with pytest.raises(InvocationFailed, match="partition"):
        worker.host.event_batch(EVENT_FUNCTION, batch, partition=None)
    assert worker.everything() == everything
    worker.host.event_batch(EVENT_FUNCTION, batch, partition=str(worker.partition(user)))
    assert worker.shard(user) is not None


def test_a_batch_without_instants_is_refused(worker: Worker) -> None:
    user = "visitor-out-of-time"
    worker.append(view(user))
    everything = worker.everything()
    batch = worker.unfolded(user, instant=utc_instant)
    timeless = [replace(one, enqueued_time="") for one in batch]
    with pytest.raises(InvocationFailed, match="instant"):
        worker.host.event_batch(EVENT_FUNCTION, timeless, partition=str(worker.partition(user)))
    assert worker.everything() == everything
    worker.host.event_batch(EVENT_FUNCTION, batch, partition=str(worker.partition(user)))


def test_the_timer_seals_what_was_folded_and_heals_what_was_not(worker: Worker) -> None:
    user = "visitor-in-a-quiet-partition"
    sealed = Path(worker.settings.blob_url) / "lake" / "sealed"
    before = set(sealed.rglob("*.ndjson.gz"))
    waiting: Any = worker.state.xlen(worker.keys(user).landing)
    worker.append(view(user))
    worker.host.timer(TIMER_FUNCTION, past_due=True)
    assert worker.shard(user) is not None, "the timer compares the marks with the broker's last sequence"
    first = set(sealed.rglob("*.ndjson.gz")) - before
    assert first
    assert waiting, "there were rows to seal"
    worker.host.timer(TIMER_FUNCTION)
    assert set(sealed.rglob("*.ndjson.gz")) - before - first, "the next minute seals what the last one healed"
    assert not worker.state.xlen(worker.keys(user).landing)
