"""The throughput benchmark measures what it says: everything offered is folded, and the stages are all there."""

from __future__ import annotations

import pytest

from shared.events import decode_event
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import Verdict
from tests.benchmarks import throughput
from tests.benchmarks.event_stream import SOURCE, EventStream
from tests.benchmarks.fold_stages import stage_times


def test_the_stream_is_events_of_all_kinds_with_some_duplicates() -> None:
    bodies = [body for _, body in EventStream(1, users=500, items=200, at_once=50).bodies(3000)]
    events = [decode_event(body) for body in bodies]
    kinds = {event.event_type.value for event in events}
    assert kinds == {"view", "cart", "remove_from_cart", "purchase", "item_updated", "preferences_set"}
    assert 10 < len(bodies) - len({event.event_id for event in events}) < 100
    assert bodies == [body for _, body in EventStream(1, users=500, items=200, at_once=50).bodies(3000)]


def test_everything_offered_is_folded_and_every_stage_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "WARM_EVENTS", 200)
    monkeypatch.setattr(throughput, "pin", lambda *_: False)
    with throughput.prepared() as bench:
        partition = bench.partition(0, 300)
        measured = bench.measure([partition], 300, 100)
        rows = bench.store.oldest_landing_rows(SOURCE, 0, 1000)
        marks = bench.store.marks(SOURCE, 0, CURRENT_VERSION.name)
        stages = stage_times(bench.store, 12, warm=100)
    assert [mark.sequence for mark in marks if mark] == [499, 499]
    assert len(rows) == 500
    assert {row.verdict for row in rows} >= {Verdict.ACCEPTED, Verdict.DUPLICATE}
    assert partition.take(1) == []
    assert measured["events_per_s"] > 0
    assert {"decode and check JSON", "read from Redis", "fold users", "fold items", "commit to Redis"} <= set(stages)
    assert all(taken > 0 for taken in stages.values())
