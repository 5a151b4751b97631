"""A shop in which one user is everywhere: history, live stream, preferences, a dead letter, pages, lists of a night."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from redis import Redis

from batch import compact_lake
from batch.build_interactions import build_interactions
from batch.catalog_snapshot import encode_entries, fold_catalog, load_item_ids
from batch.erasure_receipts import settle_receipts
from batch.nightly_records import Night, records
from batch.publish_release import erased_since, publish_release
from batch.published_lists import CandidatesSummary
from batch.run_nightly import seal_first
from batch.settle_erasures import settle_erasures
from feature_jobs.backfill_state import backfill_state
from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.user_keys import keyed_with
from shared.candidates.als import ItemFactors
from shared.candidates.query import ListKind
from shared.candidates.span import lists_folder
from shared.events import Event, EventSource, EventType, ItemId, SessionId, UserId, from_ms
from shared.features.aggregations import DAY_MS
from shared.ingest.erased_users import count_erasures
from shared.ingest.lake import ShopSettings, publish_history, read_manifest, read_rows
from shared.ingest.lake_table import unnumbered_table
from shared.ingest.logged_events import logged_events
from shared.ports import LogRecord
from shared.settings import SECRET_DEFAULT
from tests.integration import api_shop
from tests.integration.api_shop import CATEGORIES, PER_CATEGORY, ApiShop, behaviour, full_update, item_id, open_shop
from tests.integration.night_outputs import LISTS

ITEMS = CATEGORIES * PER_CATEGORY
HISTORY = "history-a"
KEY_OF = keyed_with(SECRET_DEFAULT)


@dataclass
class ErasureWorld:
    """The shop, the user who will be erased, and what she ever sent."""

    data: Path
    servers: EmbeddedServers
    shop: ApiShop
    state: Redis
    log: Redis
    user: str
    sent: list[dict[str, Any]] = field(default_factory=list)
    delivered: list[LogRecord] = field(default_factory=list)
    nights: int = 0

    def act(self, *events: dict[str, Any]) -> None:
        """She sends these; they stay in the broker log."""
        self.sent += events
        self.shop.post(*events)

    def fold(self) -> None:
        """The broker log becomes state; what was delivered is remembered."""
        for partition in range(self.shop.settings.partition_count):
            self.delivered += self.shop.broker.read(partition, self.shop.positions.get(partition, -1), 500)
        self.shop.settle()

    def erase(self) -> str:
        answer = self.shop.client.delete(f"/user_profile/{quote(self.user, safe='')}")
        assert answer.status_code == 202, answer.text
        receipt: str = answer.json()["receipt"]
        return receipt

    def page(self, user_id: str) -> Any:
        return self.shop.get(f"/recommend/{quote(user_id, safe='')}")

    def night(self, now: int) -> str:
        """Seal, compact, interactions, candidates, publish, settle: the night without Spark and models."""
        self.compact(now)
        build_interactions(self.data, KEY_OF)
        name = self.publish(make_candidates(self.data), now)
        self.shop.services.sealer.run()
        return name

    def compact(self, now: int) -> None:
        """The night up to the state."""
        self.nights += 1
        self.shop.services.sealer.run()
        seal_first(self.data, self.servers.state_url, self.shop.settings)
        assert compact_lake.main(["--data", str(self.data)]) == 0
        settle_receipts(self.shop.blobs, ("exposures",), now)
        backfill_state(self.data, self.servers.state_url, SECRET_DEFAULT)

    def publish(self, users: int, now: int) -> str:
        """The candidates as they lie there, into a release of their own that gets all traffic."""
        name = f"r-night-{self.nights}"
        api_shop.publish_release(
            self.shop.blobs, self.shop.releases, name, self.shop.settings, users_count=users, sources=self.sources()
        )
        with connect(self.servers.state_url, timeout_ms=5000) as client:
            publish_release(
                self.data, self.shop.blobs, self.shop.releases, name, user_secret=SECRET_DEFAULT,
                promote=lambda _: None,
                erased=lambda: erased_since(self.data, self.shop.blobs, client, SECRET_DEFAULT),
            )  # fmt: skip
        settle_erasures(self.data, self.shop.settings, now)
        return name

    def sources(self) -> tuple[EventSource, ...]:
        settings = self.shop.settings
        return EventSource(settings.event_source, (settings.partition_count,)), EventSource(HISTORY, (2,))


@contextmanager
def erasure_world(data: Path, user: str) -> Iterator[ErasureWorld]:
    """Everything of the shop lies below `data`, its servers' files too."""
    now = int(datetime.now(UTC).timestamp() * 1000)
    with EmbeddedServers(data) as servers:
        blobs = FolderBlobStore(data)
        publish_history(blobs, HISTORY, 2, ShopSettings(), [unnumbered_table(history(user, now))])
        backfill_state(data, servers.state_url, SECRET_DEFAULT)
        with (
            open_shop(servers.state_url, servers.log_url, data, stocked=False) as shop,
            connect(servers.state_url, timeout_ms=5000) as state,
            connect(servers.log_url, timeout_ms=5000) as log,
        ):
            world = ErasureWorld(data, servers, shop, state, log, user)
            shop.post(*(full_update(index) for index in range(ITEMS)))
            world.act(*(behaviour(user, n, "cart" if n % 3 else "view", session_id=f"of {user}") for n in range(9)))
            shop.post(*(behaviour(f"crowd-{n % 7}", n % 60) for n in range(100)))
            world.fold()
            shop.publish(api_shop.RELEASE, sources=world.sources())
            shop.services.refresh()
            yield world


def history(user: str, now: int) -> list[Event]:
    """Forty days of her and others, and a catalogue."""
    users = [user, user + "2", user[1:], "bob", "eve"]
    made = [_update(index, now - 41 * DAY_MS) for index in range(0, ITEMS, 6)]
    for n in range(400):
        at = now - 40 * DAY_MS + n * DAY_MS // 10
        made.append(
            Event(
                event_id=f"{n} of {users[n % 5]}",
                event_type=EventType.PURCHASE if n % 4 == 0 else EventType.VIEW,
                occurred_at=from_ms(at),
                user_id=UserId(users[n % 5]),
                item_id=item_id(n % ITEMS // 6 * 6),
                session_id=SessionId(f"{users[n % 5]} {n // 20}"),
                price_cents=500,
            )
        )
    return made


def _update(index: int, at: int) -> Event:
    changes = {"title": f"Old {index}", "price_cents": 400, "stock": 9}
    return Event(
        event_id=f"update {index}", event_type=EventType.ITEM_UPDATED, occurred_at=from_ms(at),
        item_id=ItemId(item_id(index)), changes=changes,
    )  # fmt: skip


def preferences(user: str) -> dict[str, Any]:
    return {
        "event_id": uuid.uuid4().hex, "event_type": "preferences_set", "user_id": user,
        "occurred_at": datetime.now(UTC).isoformat(), "changes": {"hidden_brands": ["Brand 1"]},
    }  # fmt: skip


def dead_letter(user: str) -> bytes:
    """Bytes that are no event, with her id in them."""
    return json.dumps({"event_id": "x", "event_type": "view", "customer": {"id": user}}).encode()[:-1]


def make_candidates(data: Path) -> int:
    """nightly/candidates by the code that Spark's workers run, and lists of items; returns how many users have one."""
    blobs = FolderBlobStore(data)
    manifest = read_manifest(blobs)
    assert manifest is not None
    as_of = max(at for marks in manifest.marks.values() for _, at in marks.values())
    entries = fold_catalog(blobs, load_item_ids(data), as_of)
    factors = np.random.default_rng(3).normal(size=(len(entries), CATEGORIES)).astype(np.float32)
    gram = (factors.T @ factors).astype(np.float64)
    night = Night(encode_entries(entries), ItemFactors(factors, gram, 1.0, 1.0), as_of, 30, "UTC")
    rows = read_rows(blobs)
    named = rows.filter(pa.compute.is_valid(rows["user_id"])).sort_by(
        [("user_id", "ascending"), ("source", "ascending"), ("partition", "ascending"), ("sequence", "ascending")]
    )
    made = list(records(night, logged_events(named)))
    table = pa.table(
        {
            "user_id": [user for user, _ in made],
            "newest_at": pa.array([one.newest_at for _, one in made], pa.int64()),
            "actions_count": pa.array([one.actions_count for _, one in made], pa.int64()),
            "indexes": pa.array([one.indexes for _, one in made], pa.list_(pa.int32())),
            "scores": pa.array([one.scores for _, one in made], pa.list_(pa.float32())),
            "vector": pa.array([one.vector for _, one in made], pa.list_(pa.float32())),
        }
    )
    folder = data / "nightly/candidates"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "part-00000.parquet", compression="zstd")
    erasures = count_erasures(manifest)
    (folder / "summary.json").write_bytes(msgspec.json.encode(CandidatesSummary(as_of, len(made), erasures)))
    training = data / "nightly/training"
    training.mkdir(parents=True, exist_ok=True)
    (training / "summary.json").write_bytes(msgspec.json.encode({"erasures": erasures}))
    for kind in ListKind:
        lists_folder(data, "all", kind).mkdir(parents=True, exist_ok=True)
        columns = 4 if kind is ListKind.BOUGHT_TOGETHER else 1
        lists = {"item": np.arange(ITEMS), "indexes": [[0, 1]] * ITEMS, "columns": [[[0.5, 0.4]] * columns] * ITEMS}
        pq.write_table(pa.table(lists, schema=LISTS), lists_folder(data, "all", kind) / "part-00000.parquet")
    return len(made)
