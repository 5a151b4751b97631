"""A tiny real shop for API tests: a bundle in a folder, lists in Redis, events through the broker log and the fold.

240 items in 12 categories. Items of one category are each other's neighbours in every list and in the factors, so a
click on one of them has neighbours whose rise can be seen. No Spark, no night: what the night would write is written
here by the same codecs.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from fastapi.testclient import TestClient

from functions.api.app import create_app
from functions.bootstrap import Services, compose, now_ms
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_log import RedisEventLog
from shared.adapters.redis_releases import RedisReleaseStore
from shared.candidates.query import ListKind
from shared.catalog import CatalogEntry
from shared.events import EventSource, ItemId, event_from_fields
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.releases.allocation import whole
from shared.releases.bundle import encode_files, write_bundle
from shared.releases.lists import NeighbourList
from shared.releases.manifest import ReleaseManifest, checksum
from shared.settings import Settings
from tests.integration.linear_ranker import linear_ranker

CATEGORIES = 12
PER_CATEGORY = 20
LIST_LENGTH = 12
RELEASE = "r-test-1"
WEIGHTS = {
    "retrieval_transitions_score": 2.0,
    "retrieval_cooccurrence_score": 2.0,
    "retrieval_als_score": 1.0,
    "retrieval_attributes_score": 0.5,
    "retrieval_popular_score": 1.0,
    "retrieval_arrivals_score": 0.2,
    "item_view_decayed_7d": 0.01,
    "user_action_recency_hours": 0.0001,
    "pair_price_distance_30d": 0.01,
}
GONE, HIDDEN = 7, 8
"""Indexes of an item that is out of stock and one that is hidden."""


def item_id(index: int) -> ItemId:
    return ItemId(f"sku-{index:04d}")


def category_of(index: int) -> str:
    return f"Category {index // PER_CATEGORY}"


class Seconds:
    """The machine's monotonic clock, which a test may move on."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Clock:
    """The machine's clock until `at` is set."""

    at: int | None = None

    def __call__(self) -> int:
        return now_ms() if self.at is None else self.at


@dataclass
class ApiShop:
    """The shop and one worker of its API, without background threads: what they do is done when a test says so."""

    settings: Settings
    clock: Clock
    blobs: FolderBlobStore
    releases: RedisReleaseStore
    broker: RedisEventLog
    services: Services
    app: FastAPI
    client: TestClient
    positions: dict[int, int] = field(default_factory=dict)
    seconds: Seconds = field(default_factory=Seconds)

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(path, params=query or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def page(self, user_id: str, **query: Any) -> Any:
        return self.get(f"/recommend/{user_id}", **query)

    def post(self, *events: dict[str, Any]) -> Any:
        answer = self.client.post("/events", json=list(events))
        assert answer.status_code == 202, answer.text
        return answer.json()

    def click(self, user_id: str, index: int, kind: str = "view") -> None:
        """Post it, fold it, follow it."""
        self.post(behaviour(user_id, index, kind))
        self.settle()

    def settle(self) -> None:
        """Everything in the broker log becomes state, and the items follow."""
        self.pump()
        self.services.follower.follow()

    def pump(self) -> None:
        for partition in range(self.settings.partition_count):
            while records := self.broker.read(partition, self.positions.get(partition, -1), 500):
                self.services.ingest.process(records)
                self.positions[partition] = records[-1].sequence

    def publish(self, release_id: str, **changes: Any) -> None:
        """A release of the same shop, and the allocation to it."""
        publish_release(self.blobs, self.releases, release_id, self.settings, **changes)
        self.releases.set_allocation(whole(release_id, self.releases.allocation()))


def behaviour(user_id: str, index: int, kind: str = "view", **fields: Any) -> dict[str, Any]:
    return {
        "event_id": uuid.uuid4().hex,
        "event_type": kind,
        "occurred_at": datetime.now(UTC).isoformat(),
        "user_id": user_id,
        "item_id": item_id(index),
        "price_cents": 500 + index,
        **fields,
    }


def item_update(index: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": uuid.uuid4().hex,
        "event_type": "item_updated",
        "occurred_at": datetime.now(UTC).isoformat(),
        "item_id": item_id(index),
        "changes": changes,
    }


def full_update(index: int) -> dict[str, Any]:
    arrived = datetime.now(UTC) - timedelta(days=10 if index % 40 == 39 else 200)
    return item_update(
        index,
        title=f"Product {index}",
        description="",
        categories=["Shop", category_of(index)],
        brand=f"Brand {index % 5}",
        price_cents=500 + index,
        stock=0 if index == GONE else 10,
        hidden=index == HIDDEN,
        arrived_at=arrived.isoformat(),
        attributes={"colour": "red"},
    )


def neighbours(index: int) -> list[int]:
    """The items next to it in its category, round and round."""
    start = index // PER_CATEGORY * PER_CATEGORY
    return [start + (index - start + step) % PER_CATEGORY for step in range(1, LIST_LENGTH + 1)]


def publish_release(
    blobs: FolderBlobStore,
    releases: RedisReleaseStore,
    release_id: str,
    settings: Settings,
    *,
    weights: dict[str, float] | None = None,
    ranker: bytes | None = None,
    extra: dict[str, bytes] | None = None,
    **manifest: Any,
) -> None:
    """What the night leaves: bundle and lists, without the allocation."""
    count = CATEGORIES * PER_CATEGORY
    entries = tuple(_entry(full_update(index)) for index in range(count))
    generator = np.random.default_rng(7)
    factors = np.eye(CATEGORIES)[np.arange(count) // PER_CATEGORY] + generator.normal(0, 0.05, (count, CATEGORIES))
    model = linear_ranker(WEIGHTS if weights is None else weights) if ranker is None else ranker
    files = encode_files(entries, factors.astype(np.float32), model, extra)
    values: dict[str, Any] = {
        "release_id": release_id, "created_at": 0, "as_of": 0, "schema_digest": SCHEMA.digest,
        "feature_names": SCHEMA.names, "state_version": STATE_VERSION, "time_zone": "Europe/London", "currency": "GBP",
        "bought_window_days": 30, "shop_name": "test", "items_count": count, "users_count": 64,
        "sources": (EventSource(settings.event_source, (settings.partition_count,)),),
        "als": {"regularization": 1.0, "alpha": 1.0}, "evaluation": {}, "drift_baseline": {}, "mlflow_run_id": None,
        "files": {name: checksum(data) for name, data in files.items()},
    }  # fmt: skip
    write_bundle(blobs, ReleaseManifest(**(values | manifest)), files)
    releases.begin(release_id, user_count=64, item_count=count)
    scores = np.linspace(1.0, 0.5, LIST_LENGTH, dtype=np.float32)
    ones = np.ones(LIST_LENGTH, dtype=np.float32)
    for kind in ListKind:
        columns = [scores, 9 * ones, 2 * ones, scores / 2] if kind is ListKind.BOUGHT_TOGETHER else [scores]
        lists = {
            index: NeighbourList(np.array(neighbours(index), np.int32), np.array(columns)).encode(release_id)
            for index in range(count)
        }
        releases.write_lists(release_id, kind.value, lists)


class Application:
    """The API over whichever services it is given: FastAPI takes 0.1 s to work out the routes of each new one."""

    idle: ClassVar[list[Application]] = []

    def __init__(self) -> None:
        self.services: Services | None = None
        self.app = create_app(self._services, lambda: self._services().close())

    def _services(self) -> Services:
        assert self.services is not None, "a request after its shop was closed"
        return self.services

    def give_back(self) -> None:
        """Forget the services, and the middleware that saw their requests."""
        self.services = None
        self.app.state.worker.forget()
        self.app.middleware_stack = None
        self.idle.append(self)


@contextmanager
def served(services: Services) -> Iterator[tuple[FastAPI, TestClient]]:
    """The API over these services, which are closed at the end, and a client that asks it in one event loop."""
    application = Application.idle.pop() if Application.idle else Application()
    application.services = services
    client = TestClient(application.app, raise_server_exceptions=False)
    try:
        with start_blocking_portal("asyncio") as portal:  # without, the client starts a loop and a thread a request
            client.portal = portal
            yield application.app, client
    finally:
        client.close()
        services.close()
        application.give_back()


@contextmanager
def open_shop(
    state_url: str, log_url: str, folder: Path, *, stocked: bool = True, **settings: str
) -> Iterator[ApiShop]:
    """A shop in this folder and on these servers, which must be empty; `settings` by their environment names."""
    environment = {
        "REDIS_URL": state_url, "EVENT_LOG_URL": log_url, "BLOB_URL": str(folder), "EXPLORATION": "0",
        "REDIS_TIMEOUT_MS": "1000", **settings,
    }  # fmt: skip
    parsed = Settings.from_environment(environment)
    with closing(connect(state_url, timeout_ms=5000)) as state, closing(connect(log_url, timeout_ms=5000)) as log:
        blobs, releases = FolderBlobStore(folder), RedisReleaseStore(state)
        broker = RedisEventLog(log, parsed.event_source, parsed.partition_count)
        clock, seconds = Clock(), Seconds()
        services = compose(parsed, clock=clock, seconds=seconds)
        with served(services) as (app, client):
            shop = ApiShop(parsed, clock, blobs, releases, broker, services, app, client, seconds=seconds)
            if stocked:
                stock(shop)
            yield shop


@contextmanager
def another_worker(shop: ApiShop) -> Iterator[ApiShop]:
    """A second worker of the same shop, as another process would be one; clocks and servers are shared."""
    services = compose(shop.settings, clock=shop.clock, seconds=shop.seconds)
    with served(services) as (app, client):
        services.refresh()
        yield replace(shop, services=services, app=app, client=client)


def stock(shop: ApiShop) -> None:
    """Catalogue, some shoppers' behaviour, one release."""
    count = CATEGORIES * PER_CATEGORY
    events = [full_update(index) for index in range(count)]
    popularity = itertools.chain.from_iterable([index] * (1 + index % 5) for index in range(0, count, 3))
    events += [behaviour(f"crowd-{place % 40}", index) for place, index in enumerate(popularity)]
    for start in range(0, len(events), 500):
        shop.post(*events[start : start + 500])
    shop.pump()
    shop.publish(RELEASE)
    shop.services.refresh()


def ids(page: Any) -> list[str]:
    return [item["item_id"] for item in page["items"]]


def indexes(page: Any) -> list[int]:
    return [int(one.removeprefix("sku-")) for one in ids(page)]


def _entry(update: dict[str, Any]) -> CatalogEntry:
    event = event_from_fields(update)
    assert event.item_id is not None
    entry = CatalogEntry(item_id=event.item_id, fields={})
    entry.apply(event, event.occurred_at_ms)
    return entry


def rank_mass(order: Sequence[int], wanted: set[int]) -> float:
    """Sum of 1 / rank over the wanted items of a list."""
    return sum(1 / rank for rank, index in enumerate(order, start=1) if index in wanted)


def problem_of(answer: Any, status: int) -> dict[str, Any]:
    """The one error shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert len(problem["detail"]) > 15
    return problem
