"""The drill: Redis is emptied under a serving shop, one command brings everything back while events keep coming."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from redis import Redis

from feature_jobs.backfill_state import backfill_state
from local.embedded import EmbeddedServer, EmbeddedServers, socket_path
from local.server_process import server_process
from local.shopper import ShopApi, Shopper
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_log import RedisEventLog
from shared.adapters.redis_state import RedisStateStore
from shared.catalog import CatalogEntry
from shared.events import EventSource, EventType, ItemId
from shared.features.vector import SCHEMA
from shared.ingest.lake import ShopSettings, landing_of_table, publish_history, read_rows
from shared.ingest.lake_table import unnumbered_table
from shared.ingest.processor import EventProcessor
from shared.ingest.seal import seal_landing
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord, Verdict
from shared.releases.bundle import encode_files, write_bundle
from shared.releases.manifest import checksum
from shared.settings import SECRET_DEFAULT
from tests.integration.linear_ranker import linear_ranker
from tests.integration.night_outputs import ITEMS, write_night
from tests.unit.builders import NOW, event

PARTITIONS = 4
SETTLE_S = 60.0
ALONE = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "EVENT_LOG_URL", "BLOB_URL"}}

pytestmark = pytest.mark.timeout(400)


def make_shop(data: Path) -> None:
    """A lake with a year-old history, and what a night leaves: lists and a release whose ranker can be loaded."""
    rows = [
        event(EventType.ITEM_UPDATED, user=None, item=f"item-{n}", at=NOW, changes={"title": f"T {n}", "stock": 9})
        for n in range(ITEMS)
    ]
    rows += [event(user=f"user-{n % 70}", item=f"item-{n % ITEMS}", at=NOW + n * 60_000) for n in range(400)]
    publish_history(FolderBlobStore(data), "history-a", 2, ShopSettings(), [unnumbered_table(rows)])
    manifest = write_night(data, "r-drill", 5)
    entries = tuple(
        CatalogEntry(item_id=ItemId(f"item-{n}"), fields={"title": (NOW, 1, f"T {n}")}) for n in range(ITEMS)
    )
    files = encode_files(entries, np.ones((ITEMS, 4), dtype=np.float32), linear_ranker({SCHEMA.names[0]: 1.0}))
    sources = (EventSource("live-1", (PARTITIONS,)), EventSource("history-a", (2,)))
    checked = msgspec.structs.replace(
        manifest, files={name: checksum(body) for name, body in files.items()}, sources=sources
    )
    write_bundle(FolderBlobStore(data), checked, files)


def rebuild(data: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local.rebuild_state", "--data", str(data)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=240, env=ALONE
    )


def readiness(address: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{address}/health/ready", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_for_readiness(address: str, wanted: int) -> dict[str, Any]:
    deadline = time.monotonic() + SETTLE_S
    while True:
        status, said = readiness(address)
        if status == wanted:
            return said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


@contextmanager
def trickle(address: str) -> Iterator[list[str]]:
    """Somebody clicks, from now until the block ends, about 30 times a second; the acknowledged event ids."""
    acknowledged: list[str] = []
    done = threading.Event()

    def click() -> None:
        with ShopApi(address) as api:
            number = 0
            while not done.wait(0.03):
                number += 1
                event_id = f"click {number}"
                one = {
                    "event_id": event_id,
                    "event_type": "view",
                    "occurred_at": "2026-11-20T10:00:00Z",
                    "user_id": f"user-{number % 70}",
                    "item_id": f"item-{number % ITEMS}",
                }
                api.post("events", [one])
                acknowledged.append(event_id)

    thread = threading.Thread(target=click, daemon=True)
    thread.start()
    try:
        yield acknowledged
    finally:
        done.set()
        thread.join(20)
        assert not thread.is_alive()


def wait_until_folded(client: Redis, log: RedisEventLog) -> None:
    store = RedisStateStore(client, SECRET_DEFAULT)
    deadline = time.monotonic() + SETTLE_S
    while True:
        ends = [log.last_sequence(partition) for partition in range(PARTITIONS)]
        marks = [store.marks("live-1", partition, CURRENT_VERSION.name)[1] for partition in range(PARTITIONS)]
        reached = [None if mark is None else mark.sequence for mark in marks]
        if reached == ends:
            return
        assert time.monotonic() < deadline, (reached, ends)
        time.sleep(0.05)


def shards(client: Redis) -> dict[str, Any]:
    """Everything of every partition that must not depend on how the log was cut: all but landing and feed."""
    found: dict[str, Any] = {}
    for name in sorted(key.decode() for key in client.scan_iter(match="{*}:*", count=1000)):
        kind = client.type(name)
        if kind == b"string":
            found[name] = client.get(name)
        elif kind == b"hash":
            found[name] = client.hgetall(name)
    return found


def whole_log(client: Redis, blobs: FolderBlobStore) -> list[LogRecord]:
    """The live stream as lake and landing hold it, each coordinate with the body it came with."""
    rows = {(row.partition, row.sequence): row for row in _sealed_and_landed(client, blobs)}
    for partition in range(PARTITIONS):
        numbers = sorted(sequence for part, sequence in rows if part == partition)
        assert numbers == list(range(len(numbers))), f"partition {partition} has a hole"
    assert {row.verdict for row in rows.values()} == {Verdict.ACCEPTED}
    return [LogRecord("live-1", part, seq, row.enqueued_at, row.body) for (part, seq), row in sorted(rows.items())]


def _sealed_and_landed(client: Redis, blobs: FolderBlobStore) -> list[Any]:
    store = RedisStateStore(client, SECRET_DEFAULT)
    held = list(landing_of_table(read_rows(blobs, sources=["live-1"])))
    for partition in range(PARTITIONS):
        held += store.landing_rows("live-1", partition, 0, 10**9)
    return held


def test_an_emptied_redis_is_rebuilt_by_one_command_while_events_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "shop"
    make_shop(data)
    first = rebuild(data)
    assert first.returncode == 0, first.stdout
    assert "history-a: 440 events" in first.stdout, "an empty Redis of a new shop is the same case"
    with server_process(data, 0, ALONE) as server:
        state_url, log_url = (f"unix://{socket_path(data / name)}" for name in ("state", "log"))
        with (
            closing(connect(state_url, timeout_ms=5000)) as client,
            closing(connect(log_url, timeout_ms=5000)) as log_client,
        ):
            log = RedisEventLog(log_client, "live-1", PARTITIONS)
            wait_for_readiness(server.address, 200)
            with ShopApi(server.address) as api:
                Shopper(api, "user-1").act("item-3")
            with trickle(server.address) as acknowledged:
                until(lambda: len(acknowledged) > 40)
                blobs = FolderBlobStore(data)
                seal_landing("live-1", range(PARTITIONS), store=RedisStateStore(client, SECRET_DEFAULT), blobs=blobs)
                until(lambda: len(acknowledged) > 60)
                client.flushall()
                emptied = time.monotonic()
                red = wait_for_readiness(server.address, 503)
                rebuilt_check = next(one for one in red["checks"] if one["name"] == "state_rebuilt")
                assert not rebuilt_check["ok"], red
                known = len(acknowledged)
                ended = rebuild(data)
                assert ended.returncode == 0, ended.stdout
                wait_for_readiness(server.address, 200)
                took_s = time.monotonic() - emptied
                assert len(acknowledged) > known, "events came while the state was rebuilt"
            wait_until_folded(client, log)
            served = shards(client)
            records = whole_log(client, blobs)
            with ShopApi(server.address) as api:
                assert api.get("recommend", "user-1", limit=5)["items"]
    ids = Counter(json.loads(record.body)["event_id"] for record in records)
    assert set(ids.values()) == {1}, "nothing counts twice"
    assert set(acknowledged) <= set(ids), "nothing is lost"
    assert clean_pass(tmp_path, data, records) == served
    with capsys.disabled():
        sys.stdout.write(
            f"\nrebuild drill: ready {took_s:.1f} s after FLUSHALL, {len(records)} live events, state equal\n"
        )
    again = rebuild(data)
    assert again.returncode == 0
    assert "an allocation stands: nothing to publish" in again.stdout


def clean_pass(tmp_path: Path, data: Path, records: list[LogRecord]) -> dict[str, Any]:
    """The state of history and live stream on a server that knows nothing, the stream in one go."""
    with (
        EmbeddedServers(tmp_path / "clean") as servers,
        closing(connect(servers.state_url, timeout_ms=5000)) as client,
        closing(connect(servers.log_url, timeout_ms=5000)) as log_client,
    ):
        only_history = FolderBlobStore(tmp_path / "history")
        for name in FolderBlobStore(data).names("lake/"):
            if "/sealed/" not in name:
                only_history.write(name, FolderBlobStore(data).read(name))
        assert backfill_state(tmp_path / "history", servers.state_url, SECRET_DEFAULT) == 2
        processor = EventProcessor(
            "live-1",
            store=RedisStateStore(client, SECRET_DEFAULT),
            versions=[CURRENT_VERSION],
            blobs=only_history,
            broker=RedisEventLog(log_client, "live-1", PARTITIONS),
        )
        processor.process(records)
        return shards(client)


def until(condition: Any) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_a_lake_the_command_says_so(tmp_path: Path) -> None:
    ended = rebuild(tmp_path)
    assert ended.returncode == 2
    assert "there is no lake" in ended.stdout
    assert EmbeddedServer(tmp_path / "state", ()).pid() is None
