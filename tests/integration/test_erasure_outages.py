"""Erasures while servers are away, answers are lost and processes die: never half, never said to be done too soon."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from functions.erasure.erasure_finisher import BEING_MADE_MS, LOST_MS
from local.embedded import EmbeddedServers
from shared.adapters.keys import PartitionKeys, user_key
from shared.adapters.redis_log import RedisEventLog
from shared.errors import BrokerUnavailable
from shared.features.shard import UserShard
from shared.features.state import EMPTY_AT
from shared.ingest.erasures import (
    ERASURES_FOLDER,
    HOUR_MS,
    OPEN_FOLDER,
    STORES,
    all_receipts,
    mark_done,
    open_receipts,
    read_receipt,
)
from shared.ports import Appended, Touched
from tests.integration.api_shop import RELEASE, ApiShop, behaviour, open_shop, problem_of
from tests.integration.test_erasure import USER, assert_unknown, done, erase, lines, stored_shards
from tests.integration.unreachable import Reach


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    """Foreign producers, so that any of three partitions may hold her."""
    urls = servers.state_url, servers.log_url, tmp_path
    with open_shop(*urls, stocked=False, EVENT_PRODUCERS="foreign", PARTITION_COUNT="3") as opened:
        opened.publish(RELEASE)
        opened.services.refresh()
        opened.click(USER, 3)
        opened.post(behaviour("somebody else", 4))
        opened.settle()
        yield opened


def move_on(shop: ApiShop, ms: int) -> None:
    shop.clock.at = shop.services.clock() + ms
    shop.seconds.ahead += ms / 1000


def states(client: Redis, shop: ApiShop) -> list[bool]:
    """Of each partition: does it have a tombstone, and nothing besides?"""
    found = stored_shards(client, shop)
    return [
        any(f"live-1.{number}" in name and one.erased_at != EMPTY_AT for name, one in found.items())
        and all(one.state.newest_at == EMPTY_AT for name, one in found.items() if f"live-1.{number}" in name)
        for number in range(3)
    ]


class LossyLog:
    """The broker log, of which some partitions do not answer; `takes_all` says that only their answers are lost."""

    def __init__(self, log: Any, answering: set[int], *, takes_all: bool = False) -> None:
        self._log = log
        self._answering = answering
        self._takes_all = takes_all

    def append_to(self, events: Sequence[tuple[int, bytes]]) -> list[Appended | None]:
        answers: dict[int, Appended | None] = {}
        for partition, body in events:
            if self._takes_all or partition in self._answering:
                (answers[partition],) = self._log.append_to([(partition, body)])
        found = [answers.get(partition) if partition in self._answering else None for partition, _ in events]
        if not any(found):
            raise BrokerUnavailable("no answer in time")
        return found


def lose(shop: ApiShop, monkeypatch: pytest.MonkeyPatch, answering: set[int], *, takes_all: bool = False) -> None:
    publisher: Any = shop.services.erasures.eraser._publisher
    monkeypatch.setattr(publisher, "_event_log", LossyLog(publisher._event_log, answering, takes_all=takes_all))


@pytest.mark.parametrize("takes_all", [False, True])
def test_what_some_partitions_did_not_acknowledge_is_sent_until_they_do(
    shop: ApiShop, state_client: Redis, monkeypatch: pytest.MonkeyPatch, takes_all: bool
) -> None:
    with monkeypatch.context() as patched:
        lose(shop, patched, {1}, takes_all=takes_all)
        answer = shop.client.delete(f"/user_profile/{USER}")
        problem = problem_of(answer, 503)
        assert problem["type"].endswith(":erasure_unacknowledged")
        receipt = problem["receipt"]
        assert answer.headers["location"] == f"/erasures/{receipt}"
        assert_unknown(shop)
        shop.settle()
        assert states(state_client, shop) == ([True] * 3 if takes_all else [False, True, False])
        lose(shop, patched, set())
        with pytest.raises(BrokerUnavailable):
            shop.services.sealer.run()
        assert takes_all or "state" not in done(shop, receipt)
    move_on(shop, 10_000)
    shop.services.sealer.run()
    shop.settle()
    shop.services.sealer.run()
    assert states(state_client, shop) == [True] * 3
    assert {"state", "overlay", "landing", "nightly_record"} <= done(shop, receipt)
    held = read_receipt(shop.blobs, receipt)
    assert held is not None
    assert all(place.acknowledged_at is not None for place in held.places)


def test_a_broker_that_is_away_is_said_and_nothing_looks_done(
    servers: EmbeddedServers, shop: ApiShop, state_client: Redis
) -> None:
    with Reach(servers.log_url).away():
        problem = problem_of(shop.client.delete(f"/user_profile/{USER}"), 503)
        receipt = problem["receipt"]
        second = problem_of(shop.client.delete(f"/user_profile/{USER}"), 503)
        assert "receipt" not in second, "the circuit is open: the broker log was not even asked"
        assert second["type"].endswith(":broker_log_unavailable")
        assert all_receipts(shop.blobs) == open_receipts(shop.blobs) == [receipt]
        assert shop.get(f"/user_profile/{USER}")["known"]
        assert done(shop, receipt) == set()
    shop.services.erasures.finisher.run()
    assert done(shop, receipt) == set(), "the request may be on its way still"
    move_on(shop, BEING_MADE_MS + 1)
    shop.services.sealer.run()
    assert_unknown(shop)
    shop.settle()
    shop.services.sealer.run()
    assert states(state_client, shop) == [True] * 3
    assert {"state", "overlay", "landing", "nightly_record"} <= done(shop, receipt)


class Dies(BaseException):
    """What ends the process."""


@pytest.mark.parametrize(
    "death", ["before the receipt", "before the first copy", "amid the copies", "after the copies"]
)
def test_a_process_that_dies_leaves_an_erasure_that_ends_whole_or_none(
    shop: ApiShop, state_client: Redis, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    eraser: Any = shop.services.erasures.eraser
    log: RedisEventLog = eraser._publisher._event_log

    def append_to(events: Sequence[tuple[int, bytes]]) -> list[Appended | None]:
        if death != "before the first copy":
            log.append_to(events[:1] if death == "amid the copies" else events)
        raise Dies

    with monkeypatch.context() as patched:
        if death == "before the receipt":
            written = shop.blobs.write

            def write(name: str, data: bytes) -> None:
                if name.startswith(ERASURES_FOLDER):
                    raise Dies
                written(name, data)

            patched.setattr(eraser._blobs, "write", write)
        else:
            patched.setattr(eraser._publisher, "_event_log", _Log(append_to))
        with pytest.raises(Dies):
            eraser.erase(USER)
    (receipt,) = open_receipts(shop.blobs)
    shop.settle()
    move_on(shop, BEING_MADE_MS + 1)
    shop.services.sealer.run()
    shop.settle()
    shop.services.sealer.run()
    if death == "before the receipt":
        assert list(shop.blobs.names(OPEN_FOLDER)) == []
        assert shop.get(f"/user_profile/{USER}")["known"], "nothing was begun and nothing was promised"
        return
    assert states(state_client, shop) == [True] * 3
    assert_unknown(shop)
    assert {"state", "overlay", "landing", "nightly_record"} <= done(shop, receipt)


class _Log:
    def __init__(self, append_to: Any) -> None:
        self.append_to = append_to


def test_redis_away_an_erasure_is_accepted_and_holds_once_it_is_back(
    servers: EmbeddedServers, shop: ApiShop, state_client: Redis
) -> None:
    with Reach(servers.state_url).away():
        receipt = erase(shop)
        problem_of(shop.client.get(f"/erasures/{receipt}"), 503)
        page = shop.page(USER)
        assert page["fallback"]["cause"] == "state_unavailable"
    move_on(shop, 5000)
    shop.services.keeper.keep_up()
    assert_unknown(shop)
    assert "overlay" in done(shop, receipt)
    shop.settle()
    shop.services.sealer.run()
    assert {"state", "landing", "nightly_record"} <= done(shop, receipt)


def test_an_erasure_that_came_to_nothing_in_a_partition_is_sent_again(
    shop: ApiShop, state_client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """An older fold, or one that raised, may have made a dead letter of it."""
    receipt = erase(shop)
    shop.settle()
    key = user_key(USER, shop.settings.user_key_secret)
    version = shop.services.erasures.finisher._versions()[0].name
    lost = PartitionKeys("live-1", 2).user(version, key)
    state_client.delete(lost)
    shop.services.sealer.run()
    assert "state" not in done(shop, receipt)
    held = read_receipt(shop.blobs, receipt)
    assert held is not None
    logmark = PartitionKeys("live-1", 2).log_mark
    mark = shop.services.erasures.finisher._store.read("live-1", 2, (), Touched()).log_mark
    assert mark is not None
    for name in (logmark, PartitionKeys("live-1", 2).mark(version)):
        state_client.set(name, f"{mark.sequence}:{held.requested_at + LOST_MS + 60_000}")
    move_on(shop, 60_000)
    shop.services.erasures.finisher.run()
    assert "passed erasure" in caplog.text
    assert USER not in caplog.text
    records = shop.broker.read(2, mark.sequence, 10)
    assert [receipt.encode() in one.body for one in records] == [True]


def test_versions_that_nobody_folds_forget_her_too_unless_they_are_being_loaded(
    shop: ApiShop, state_client: Redis
) -> None:
    key = user_key(USER, shop.settings.user_key_secret)
    another = user_key("another", shop.settings.user_key_secret)
    old = PartitionKeys("live-1", 0).user("aaaa", key)
    left, loading = (PartitionKeys("live-1", number).user("bbbb", key) for number in (1, 2))
    kept = PartitionKeys("live-1", 0).user("aaaa", another)
    state_client.set(old, b"\x02 of an earlier format")
    state_client.set(left, UserShard.empty().encode())
    receipt = erase(shop)
    tombstone = UserShard.empty()
    tombstone.erased_at = shop.services.clock() + HOUR_MS
    state_client.set(loading, tombstone.encode())
    state_client.set(kept, b"\x02 another's")
    shop.settle()
    assert "state" not in done(shop, receipt), "nobody looked through what is not folded yet"
    shop.services.sealer.run()
    assert "state" in done(shop, receipt)
    assert [state_client.exists(name) for name in (old, left, loading, kept)] == [0, 0, 1, 1]


def test_events_at_the_same_time_belong_to_who_was_there(shop: ApiShop, state_client: Redis) -> None:
    stop = threading.Event()

    def shopping() -> None:
        number = 0
        while not stop.is_set():
            shop.services.intake.take([msgspec.json.encode(behaviour(USER, number % 100))])
            number += 1

    threads = [threading.Thread(target=shopping) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        receipts = [erase(shop) for _ in range(3)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    shop.settle()
    held = [read_receipt(shop.blobs, receipt) for receipt in receipts]
    newest = max(one.erased_at for one in held if one is not None)
    found = stored_shards(state_client, shop)
    assert len(found) == 3
    for one in found.values():
        assert one.erased_at == newest
        assert all(entry[0] > newest for entries in one.state.lists for entry in entries)


def test_a_receipt_closes_when_the_night_has_done_its_part_and_stays_readable(
    shop: ApiShop, caplog: pytest.LogCaptureFixture
) -> None:
    receipt = erase(shop)
    shop.settle()
    shop.services.sealer.run()
    assert "ALARM" not in caplog.text
    assert b"recommndr_open_erasures 1.0" in shop.services.metrics.text()
    move_on(shop, 73 * HOUR_MS)
    shop.services.sealer.run()
    assert f"ALARM erasure {receipt} is overdue in lake, sealed_files, exposures" in caplog.text
    for name in STORES:
        if name not in done(shop, receipt):
            assert open_receipts(shop.blobs) == [receipt]
            assert not shop.get(f"/erasures/{receipt}")["complete"]
            mark_done(shop.blobs, receipt, name, shop.services.clock())
    move_on(shop, 2 * HOUR_MS)
    assert shop.get(f"/erasures/{receipt}")["complete"]
    shop.services.sealer.run()
    assert open_receipts(shop.blobs) == []
    assert all(line["done_at"] for line in lines(shop, receipt).values())
