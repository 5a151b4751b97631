"""/dead_letters over HTTP: finding with filters and pages, showing, replaying one, many, twice and two at once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local.embedded import EmbeddedServers
from shared.adapters.redis_log import RedisEventLog
from shared.errors import BrokerUnavailable
from shared.ingest.processor import PartitionProcessor
from tests.integration.api_shop import ApiShop, behaviour, open_shop, problem_of

FIVE = ("fine", "poison", "poison-2", "last")


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path, world: Any) -> Iterator[ApiShop]:
    """One partition: fine, folded badly twice, no JSON, no text, fine. Rows 1 to 4 are dead."""
    with open_shop(servers.state_url, servers.log_url, tmp_path, stocked=False, PARTITION_COUNT="1") as opened:
        bodies = [json.dumps({**behaviour("ann", 3), "event_id": one}).encode() for one in FIVE]
        opened.broker.append([("ann", one) for one in (*bodies[:3], b"{", b"\xff\xfe", bodies[3])])
        fold(opened, world.poisoned({"poison", "poison-2"}))
        yield opened


def fold(shop: ApiShop, version: Any) -> None:
    desk = shop.services.dead_letters
    processor = PartitionProcessor(
        "live-1", 0, store=desk._store, versions=[version], blobs=shop.blobs, broker=shop.broker
    )
    while records := shop.broker.read(0, shop.positions.get(0, -1), 100):
        processor.process(records)
        shop.positions[0] = records[-1].sequence


def ids(found: Any) -> list[str]:
    return [one["id"] for one in found["letters"]]


def views(shop: ApiShop) -> list[str]:
    """The event ids the log has accepted."""
    rows = shop.services.dead_letters._store.landing_rows("live-1", 0, 0, 10**9)
    return [json.loads(row.body)["event_id"] for row in rows if row.verdict == "accepted"]


def test_letters_are_listed_by_filters_and_pages(shop: ApiShop) -> None:
    found = shop.get("/dead_letters")
    assert ids(found) == [f"live-1/0/{sequence}" for sequence in (1, 2, 3, 4)]
    assert (found["total"], found["next_after"]) == (4, None)
    assert [one["replay"] for one in found["letters"]] == ["none", "none", "not_possible", "not_possible"]
    assert found["letters"][0] | {"enqueued_at": "", "bytes": 0} == {
        "id": "live-1/0/1", "enqueued_at": "", "event_id": "poison", "event_type": "view", "replay": "none", "bytes": 0,
        "reason": "fold failed: ZeroDivisionError: poison",
    }  # fmt: skip
    assert "body" not in found["letters"][0]
    assert ids(shop.get("/dead_letters", reason="zerodivision")) == ["live-1/0/1", "live-1/0/2"]
    assert ids(shop.get("/dead_letters", source="live-9")) == []
    assert ids(shop.get("/dead_letters", partition=1)) == []
    assert ids(shop.get("/dead_letters", since="2199-01-01")) == []
    assert len(ids(shop.get("/dead_letters", since="2020-01-01T00:00:00+01:00"))) == 4
    seen, after = [], None
    for _ in range(9):
        page = shop.get("/dead_letters", limit=3, **({"after": after} if after else {}))
        seen += ids(page)
        after = page["next_after"]
        if after is None:
            break
    assert seen == ids(found)


def test_one_is_shown_with_its_bytes(shop: ApiShop) -> None:
    whole = shop.get("/dead_letters/live-1/0/1")
    assert json.loads(whole["body"])["event_id"] == "poison"
    assert (whole["hexadecimal"], whole["replay_begun_at"]) == (False, None)
    whole = shop.get("/dead_letters/live-1/0/4")
    assert (whole["body"], whole["hexadecimal"], whole["event_id"]) == ("fffe", True, None)
    assert "unknown_dead_letter" in problem_of(shop.client.get("/dead_letters/live-1/0/0"), 404)["type"]
    assert problem_of(shop.client.get("/dead_letters/live-1/0/77"), 404)
    for path in ("Live/0/1", "live-1/-1/1", "live-1/0/x", "live-1/0/9999999999999999999999"):
        assert problem_of(shop.client.get(f"/dead_letters/{path}"), 422)


def test_a_replay_counts_once_however_often_it_is_asked_for(shop: ApiShop, world: Any) -> None:
    told = shop.client.post("/dead_letters/live-1/0/1/replay")
    assert (told.status_code, told.json()) == (200, {"id": "live-1/0/1", "outcome": "published"})
    assert shop.client.post("/dead_letters/live-1/0/1/replay").json()["outcome"] == "done_before"
    fold(shop, world.poisoned(set()))
    assert views(shop) == ["fine", "last", "poison"]
    whole = shop.get("/dead_letters/live-1/0/1")
    assert (whole["replay"], whole["replay_finished_at"] is None) == ("done", False)
    assert shop.client.post("/dead_letters/live-1/0/2/replay").json()["outcome"] == "published"
    assert "not_replayable" in problem_of(shop.client.post("/dead_letters/live-1/0/4/replay"), 409)["type"]
    assert problem_of(shop.client.post("/dead_letters/live-1/0/5/replay"), 404)


def test_two_at_once_count_once(shop: ApiShop, world: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: shop.client.post("/dead_letters/live-1/0/1/replay"), range(2)))
    assert [one.status_code for one in answers] == [200, 200]
    fold(shop, world.poisoned(set()))
    assert views(shop).count("poison") == 1


def test_many_are_replayed_by_ids_filters_or_all(shop: ApiShop, world: Any) -> None:
    def ask(**body: Any) -> Any:
        return shop.client.post("/dead_letters/replay", json=body)

    assert "nothing_named" in problem_of(ask(), 422)["type"]
    dry = ask(all=True, dry_run=True).json()
    assert dry == {
        "outcomes": [{"id": f"live-1/0/{one}", "outcome": "would_be_replayed"} for one in (1, 2)], "remaining": 0,
    }  # fmt: skip
    assert shop.broker.last_sequence(0) == 5
    assert problem_of(ask(ids=["live-1/0/1", "live-1/0/0"]), 404)
    assert shop.broker.last_sequence(0) == 5, "one that is not there, and none was replayed"
    named = ask(ids=["live-1/0/1", "live-1/0/4"]).json()["outcomes"]
    assert [one["outcome"] for one in named] == ["published", "no_event"]
    assert [one["id"] for one in ask(reason="zero").json()["outcomes"]] == ["live-1/0/2"]
    assert ask(all=True).json() == {"outcomes": [], "remaining": 0}
    fold(shop, world.poisoned(set()))
    assert sorted(views(shop)) == sorted(FIVE)
    bodies: list[Any] = [{"ids": ["x"]}, {"unknown": 1}, {"ids": ["live-1/0/1"] * 201}, {"since": "soon"}, []]
    for body in bodies:
        answer = shop.client.post("/dead_letters/replay", json=body)
        assert problem_of(answer, 422)


def test_what_the_broker_does_not_take_can_be_sent_again(shop: ApiShop, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, append = itertools.count(), RedisEventLog.append

    def failing(log: RedisEventLog, events: Any) -> Any:
        if next(tries) == 1:
            raise BrokerUnavailable("the broker log does not answer")
        return append(log, events)

    monkeypatch.setattr(RedisEventLog, "append", failing)
    refused = problem_of(shop.client.post("/dead_letters/replay", json={"all": True}), 503)
    assert refused["outcomes"] == [{"id": "live-1/0/1", "outcome": "published"}]
    assert [one["replay"] for one in shop.get("/dead_letters")["letters"][:2]] == ["done", "begun"]
    again = shop.client.post("/dead_letters/replay", json={"all": True}).json()
    assert again["outcomes"] == [{"id": "live-1/0/2", "outcome": "published"}]
