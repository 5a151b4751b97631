"""Chunks are ascending contiguous runs, cut at holes, at 100 records and at 24 hours."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InfrastructureFault, StreamRecreated
from shared.features.fold import fold_user
from shared.features.shard import UserShard
from shared.ingest.chunks import LATEST_AT, SPAN_MS, Gap, next_chunk, ordered
from shared.ports import LandingRow, LogRecord, Verdict
from tests.unit.builders import event


def record(sequence: int, enqueued_at: int | None = None) -> LogRecord:
    return LogRecord("s", 0, sequence, sequence if enqueued_at is None else enqueued_at, b"")


def sequences(found: Any) -> list[int]:
    assert isinstance(found, list)
    return [one.sequence for one in found]


@given(st.lists(st.integers(0, 400), max_size=300), st.integers(-1, 400))
def test_walking_the_chunks_gives_every_offered_sequence_above_the_mark_once(offered: list[int], mark: int) -> None:
    records = ordered([record(one) for one in offered], "s", 0)
    seen: list[int] = []
    missing: list[int] = []
    at = mark
    while (chunk := next_chunk(records, at)) is not None:
        if isinstance(chunk, Gap):
            assert chunk.first == at + 1
            missing += range(chunk.first, chunk.last + 1)
            at = chunk.last
            continue
        assert 1 <= len(chunk) <= 100
        assert sequences(chunk) == list(range(at + 1, at + 1 + len(chunk)))
        seen += sequences(chunk)
        at = chunk[-1].sequence
    assert seen == sorted({one for one in offered if one > mark})
    assert sorted(seen + missing) == list(range(mark + 1, max([mark, *seen]) + 1))


def test_order_and_duplicates_of_the_offer_do_not_matter() -> None:
    records = [record(one) for one in range(50)]
    messy = records * 2
    random.Random(1).shuffle(messy)
    assert ordered(messy, "s", 0) == records


def test_a_start_above_the_mark_is_a_gap_and_so_is_a_hole() -> None:
    records = [record(one) for one in (5, 6, 9)]
    assert next_chunk(records, 2) == Gap(3, 4)
    assert sequences(next_chunk(records, 4)) == [5, 6]
    assert next_chunk(records, 6) == Gap(7, 8)
    assert sequences(next_chunk(records, 8)) == [9]
    assert next_chunk(records, 9) is None
    assert next_chunk([record(3)], -1) == Gap(0, 2)
    assert sequences(next_chunk([record(0), record(1), record(3)], -1)) == [0, 1]
    assert sequences(next_chunk([record(0), record(2)], -1)) == [0]


def test_a_chunk_spans_less_than_a_day() -> None:
    records = [record(0, 0), record(1, SPAN_MS - 1), record(2, SPAN_MS), record(3, SPAN_MS + 1)]
    assert sequences(next_chunk(records, -1)) == [0, 1]
    assert sequences(next_chunk(records, 1)) == [2, 3]
    falling = [record(0, SPAN_MS), record(1, 0)]
    assert sequences(next_chunk(falling, -1)) == [0]


def test_a_chunk_ends_where_another_version_stands() -> None:
    records = [record(one) for one in range(10)]
    assert sequences(next_chunk(records, -1, until=3)) == [0, 1, 2, 3]
    assert next_chunk(records, 3, until=3) is None
    assert sequences(next_chunk(records, -1, most=2)) == [0, 1]


def test_a_skipped_range_counts_for_all_its_sequences() -> None:
    def row(first: int, last: int | None = None) -> LandingRow:
        return LandingRow("s", 0, first, 0, Verdict.SKIPPED if last else Verdict.ACCEPTED, last_sequence=last)

    rows = [row(0), row(1, 4), row(5), row(7)]
    assert sequences(next_chunk(rows, -1)) == [0, 1, 5]
    assert sequences(next_chunk(rows, 2)) == [1, 5], "a range that begins below the mark still covers what is above"
    assert next_chunk(rows, 5) == Gap(6, 6)


@pytest.mark.parametrize("name", ["sequence", "enqueued_at", "partition"])
@pytest.mark.parametrize("value", [None, "7", True, -1, 1.0])
def test_a_record_without_usable_coordinates_is_an_infrastructure_fault(name: str, value: Any) -> None:
    with pytest.raises(InfrastructureFault, match=name):
        ordered([replace(record(0), **{name: value})], "s", 0)


def test_a_clock_that_state_cannot_keep_is_an_infrastructure_fault() -> None:
    with pytest.raises(InfrastructureFault, match="enqueued_at"):
        ordered([record(0, LATEST_AT + 1)], "s", 0)
    assert fold_user(UserShard.empty(), event(at=LATEST_AT), LATEST_AT, 0)


def test_records_of_another_partition_or_source_are_refused() -> None:
    for source, partition in (("s", 1), ("t", 0)):
        with pytest.raises(InfrastructureFault):
            ordered([record(0)], source, partition)


def test_one_sequence_with_two_instants_is_a_stream_made_anew() -> None:
    with pytest.raises(StreamRecreated):
        ordered([record(1, 5), record(1, 6)], "s", 0)
