"""Two real servers for the whole session; every test finds them empty. And a partition's world to break things in."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import PartitionKeys
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.events import Event, EventType, ItemId, UserId, encode_event, from_ms
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.processor import OnBroken, PartitionProcessor, alarm
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord, StateStore

SOURCE = "live-1"
START_AT = 1_780_000_000_000


@pytest.fixture(scope="session")
def session_servers() -> Iterator[EmbeddedServers]:
    folder = Path(tempfile.mkdtemp(prefix="recommndr-test-"))
    try:
        with EmbeddedServers(folder) as servers:
            yield servers
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """A module's own, for one that cuts them off or keeps one shop for all its tests."""
    with EmbeddedServers(tmp_path_factory.mktemp("servers")) as opened:
        yield opened


@pytest.fixture
def servers(session_servers: EmbeddedServers) -> EmbeddedServers:
    for url in (session_servers.state_url, session_servers.log_url):
        with connect(url, timeout_ms=5000) as client:
            client.flushall()
    return session_servers


@pytest.fixture
def state_client(servers: EmbeddedServers) -> Iterator[Redis]:
    with connect(servers.state_url, timeout_ms=5000) as client:
        yield client


@pytest.fixture
def log_client(servers: EmbeddedServers) -> Iterator[Redis]:
    with connect(servers.log_url, timeout_ms=5000) as client:
        yield client


@dataclass
class HeldBroker:
    """A broker's retained log of partition 0 in memory, with the real port's meaning; it can lose its beginning."""

    records: list[LogRecord] = field(default_factory=list)
    first: int = 0
    reads: int = 0

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
        assert partition == 0
        self.reads += 1
        return [one for one in self.records if one.sequence > after_sequence and one.sequence >= self.first][:limit]

    def last_sequence(self, partition: int) -> int | None:
        assert partition == 0
        return self.records[-1].sequence if self.records else None

    def first_sequence(self, partition: int) -> int:
        assert partition == 0
        return self.first

    def trim_below(self, partition: int, sequence: int) -> None:
        assert partition == 0
        self.first = max(self.first, sequence)


@dataclass
class World:
    """One partition: its state, lake and broker, and the records that were ever published."""

    client: Redis
    store: RedisStateStore
    blobs: FolderBlobStore
    broker: HeldBroker

    def processor(
        self,
        store: StateStore | None = None,
        versions: Sequence[AnyVersion] = (CURRENT_VERSION,),
        on_broken: OnBroken = alarm,
    ) -> PartitionProcessor:
        return PartitionProcessor(
            SOURCE,
            0,
            store=store or self.store,
            versions=versions,
            blobs=self.blobs,
            broker=self.broker,
            on_broken=on_broken,
        )

    def poisoned(self, event_ids: set[str]) -> AnyVersion:
        """The current version, whose fold raises for these events after half its work."""

        def fold_user(shard: Any, event: Event, enqueued_at: int, sequence: int) -> bool:
            if event.event_id in event_ids:
                shard.sequence = 999_999
                raise ZeroDivisionError(event.event_id)
            return CURRENT_VERSION.fold_user(shard, event, enqueued_at, sequence)

        return replace(CURRENT_VERSION, fold_user=fold_user)

    def publish(self, bodies: Sequence[bytes], *, step_ms: int = 1000) -> list[LogRecord]:
        start = len(self.broker.records)
        records = [
            LogRecord(SOURCE, 0, start + offset, START_AT + (start + offset) * step_ms, body)
            for offset, body in enumerate(bodies)
        ]
        self.broker.records += records
        return records

    def shards(self) -> dict[str, Any]:
        """Everything that must not depend on how the log was cut: all keys but landing and feed."""
        found: dict[str, Any] = {}
        for name in sorted(key.decode() for key in self.client.scan_iter()):
            kind = self.client.type(name)
            if kind == b"string":
                found[name] = self.client.get(name)
            elif kind == b"hash":
                found[name] = self.client.hgetall(name)
        return found

    def landing(self) -> list[tuple[int, str]]:
        """(sequence, verdict) of the rows still in landing; a skipped range counts for each of its sequences."""
        rows = self.store.oldest_landing_rows(SOURCE, 0, 1_000_000)
        return [
            (one, row.verdict) for row in rows for one in range(row.sequence, (row.last_sequence or row.sequence) + 1)
        ]

    def copy_state(self) -> dict[bytes, Any]:
        """A copy of the whole state, as a backup holds it."""
        return {key: self.client.dump(key) for key in self.client.scan_iter()}

    def restore_state(self, copy: dict[bytes, Any]) -> None:
        self.client.flushall()
        for key, data in copy.items():
            self.client.restore(key, 0, data)

    def keys(self) -> PartitionKeys:
        return PartitionKeys(SOURCE, 0)


@pytest.fixture
def world(state_client: Redis, tmp_path: Path) -> World:
    return World(state_client, RedisStateStore(state_client, "test secret"), FolderBlobStore(tmp_path), HeldBroker())


def make_bodies(count: int, seed: int) -> list[bytes]:
    """Believable events of 12 users and 20 items: all types, client duplicates, some late, some that do not decode."""
    draw = random.Random(seed)
    bodies: list[bytes] = []
    for index in range(count):
        at = START_AT + index * 1000 - (draw.randrange(86_400_000) if draw.random() < 0.05 else draw.randrange(500))
        roll = draw.random()
        user, item = UserId(f"user-{draw.randrange(12)}"), ItemId(f"item-{draw.randrange(20)}")
        common: dict[str, Any] = {"event_id": f"event-{seed}-{index}", "occurred_at": from_ms(at)}
        if bodies and roll < 0.06:
            bodies.append(bodies[draw.randrange(max(0, len(bodies) - 60), len(bodies))])
        elif roll < 0.09:
            bodies.append(draw.choice([b"", b"{", b"\xff\x00", b'{"event_id":"x"}', b"[]"]))
        elif roll < 0.17:
            changes = {"title": f"Title {index}", "price_cents": draw.randrange(10_000), "stock": draw.randrange(5)}
            event = Event(event_type=EventType.ITEM_UPDATED, item_id=item, changes=changes, **common)
            bodies.append(encode_event(event))
        elif roll < 0.19:
            changes = {"hidden_items": [item]}
            event = Event(event_type=EventType.PREFERENCES_SET, user_id=user, changes=changes, **common)
            bodies.append(encode_event(event))
        elif roll < 0.20:
            bodies.append(encode_event(Event(event_type=EventType.USER_ERASED, user_id=user, **common)))
        else:
            kind = draw.choice([EventType.VIEW, EventType.VIEW, EventType.CART, EventType.PURCHASE])
            event = Event(event_type=kind, user_id=user, item_id=item, price_cents=draw.randrange(9999), **common)
            bodies.append(encode_event(event))
    return bodies


@pytest.fixture
def bodies() -> Callable[[int, int], list[bytes]]:
    return make_bodies
