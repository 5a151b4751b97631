"""An event that cannot be folded becomes a dead letter alone; many of them are the code's fault."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import BadDeployment
from shared.ingest.fold_chunk import FOLD_FAILED
from shared.ingest.lake import read_range
from shared.ingest.seal import seal_partition
from shared.ports import Verdict

SOURCE = "live-1"


def view(event_id: str, user: str = "u") -> bytes:
    return (
        b'{"event_id":"%s","event_type":"view","occurred_at":"2026-05-28T20:00:00Z","user_id":"%s","item_id":"i"}'
        % (event_id.encode(), user.encode())
    )


def test_poison_events_are_isolated_and_the_rest_is_folded(world: Any) -> None:
    bad = {"e7", "e8", "e63"}
    records = world.publish([view(f"e{index}", f"u{index % 3}") for index in range(120)])
    world.processor(versions=[world.poisoned(bad)]).process(records)
    rows = world.store.oldest_landing_rows(SOURCE, 0, 1000)
    dead = {row.sequence: row for row in rows if row.verdict is Verdict.DEAD}
    assert set(dead) == {7, 8, 63}
    assert dead[63].body == records[63].body
    assert (dead[63].reason or "").startswith(f"{FOLD_FAILED}ZeroDivisionError")
    shards = world.shards()
    world.client.flushall()
    world.broker.records = []
    left = [one for one in records if one.sequence not in dead]
    world.publish([one.body if one in left else b"no event" for one in records])
    world.processor().process(world.broker.records)
    assert world.shards() == shards


def test_more_than_five_failures_among_a_hundred_are_a_bad_deployment(world: Any) -> None:
    records = world.publish([view(f"e{index}") if index % 2 else b"bytes" for index in range(40)])
    bad = {f"e{index}" for index in (1, 3, 5, 7, 9, 11)}
    processor = world.processor(versions=[world.poisoned(bad)])
    with pytest.raises(BadDeployment):
        processor.process(records)
    assert world.landing()[-1][0] == 10, "the sixth failure must not become a dead letter"
    seal_partition(SOURCE, 0, store=world.store, blobs=world.blobs)
    with pytest.raises(BadDeployment):
        world.processor(versions=[world.poisoned(bad)]).process(records)
    world.processor().process(records)
    assert len(read_range(world.blobs, SOURCE, 0, 0, 100)) + len(world.landing()) == 40


def test_five_failures_among_a_hundred_are_dead_letters(world: Any) -> None:
    records = world.publish([view(f"e{index}") for index in range(206)])
    bad = {f"e{index}" for index in (1, 3, 5, 7, 9, 101, 103, 105, 107, 109)}
    world.processor(versions=[world.poisoned(bad)]).process(records)
    assert sum(verdict is Verdict.DEAD for _, verdict in world.landing()) == 10


def test_an_event_from_the_future_and_undecodable_bytes_are_dead_with_their_body(world: Any) -> None:
    ahead = view("far").replace(b"2026-05-28", b"2026-12-28")
    records = world.publish([b"\xff\xfe", ahead, view("fine")])
    world.processor().process(records)
    rows = world.store.oldest_landing_rows(SOURCE, 0, 10)
    assert [row.verdict for row in rows] == [Verdict.DEAD, Verdict.DEAD, Verdict.ACCEPTED]
    assert [row.body for row in rows] == [b"\xff\xfe", ahead, records[2].body]
    assert "undecodable" in (rows[0].reason or "")
    assert "after enqueued_at" in (rows[1].reason or "")
