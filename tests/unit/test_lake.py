"""The lake: rows, history, sealing and reading."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch.compact_lake import compact
from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import ConfigurationError, CorruptRecord, LakeConflict, StreamRecreated
from shared.events import (
    decode_event,
    partition_of,
)
from shared.ingest.exposures import (
    exposure_files,
    exposure_files_of_minute,
    exposure_lines_of,
    read_exposures,
    write_exposures,
)
from shared.ingest.lake import (
    EVENT_SCHEMA,
    LAKE_SCHEMA,
    LakeManifest,
    ShopSettings,
    events_of_table,
    highest_sealed,
    landing_line,
    parse_landing_line,
    publish_history,
    read_manifest,
    read_range,
    read_rows,
    write_manifest,
    write_sealed,
)
from shared.ingest.lake_sealed import SEALED_FOLDER
from shared.ingest.lake_table import unnumbered_table
from shared.ingest.partitioning import partitions_of_keys
from shared.ports import LandingRow, Mark, Verdict
from tests.unit.lake_builders import DAY, LIVE, SHOP, START, Watched, coordinates, event, history, row, skipped


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobStore:
    return FolderBlobStore(tmp_path / "shop")


def test_partitions_of_many_keys_are_those_of_each() -> None:
    keys = [f"{'ключ漢a'[: length % 6]}{'x' * length}" for length in range(40)] * 3
    for count in (1, 4, 7):
        assert partitions_of_keys(keys, count).tolist() == [partition_of(key, count) for key in keys]
    assert partitions_of_keys([], 4).tolist() == []


def test_history_is_numbered_by_partition_in_time_order_and_read_back(blobs: FolderBlobStore) -> None:
    events = history(blobs)
    table = read_rows(blobs)
    assert table.schema.equals(LAKE_SCHEMA)
    assert {found.event_id: found for found in events_of_table(table) if found} == {one.event_id: one for one in events}
    held = table.to_pylist()
    for partition in range(4):
        own = [found for found in held if found["partition"] == partition]
        assert [found["sequence"] for found in own] == list(range(len(own)))
        assert [found["occurred_at"] for found in own] == sorted(found["occurred_at"] for found in own)
        assert all(partition_of(found["user_id"], 4) == partition for found in own)
    assert all(found["enqueued_at"] == found["occurred_at"] for found in held)
    manifest = read_manifest(blobs)
    assert manifest is not None
    assert manifest.shop == SHOP
    entry = manifest.source("history-a")
    assert entry is not None
    assert (entry.shift_weeks, entry.kind, entry.partition_counts) == (3, "history", (4,))
    assert [file.day for file in manifest.files] == ["2023-11-15", "2023-11-16", "2023-11-17"]
    for text, (sequence, at) in manifest.marks["history-a"].items():
        own = [found for found in held if found["partition"] == int(text)]
        assert (own[-1]["sequence"], own[-1]["enqueued_at"]) == (sequence, at)


def test_tables_may_break_anywhere(blobs: FolderBlobStore, tmp_path: Path) -> None:
    events = history(blobs)
    other = FolderBlobStore(tmp_path / "other")
    pieces = [unnumbered_table(events[start : start + 7]) for start in range(0, len(events), 7)]
    publish_history(other, "history-a", 4, SHOP, [unnumbered_table([]), *pieces], 3)
    assert read_rows(other).equals(read_rows(blobs))
    left, right = read_manifest(blobs), read_manifest(other)
    assert left is not None
    assert right is not None
    assert [(file.name, file.first, file.last) for file in left.files] == [
        (file.name, file.first, file.last) for file in right.files
    ]


def test_history_out_of_time_order_or_without_a_key_is_refused(blobs: FolderBlobStore) -> None:
    late, early = unnumbered_table([event(1, START + DAY)]), unnumbered_table([event(2, START)])
    with pytest.raises(ValueError, match="order of occurred_at"):
        publish_history(blobs, "history-a", 4, SHOP, [late, early])
    nobody = unnumbered_table([event(1, START)]).set_column(
        3, EVENT_SCHEMA.field("user_id"), pa.array([None], pa.string())
    )
    with pytest.raises(ValueError, match="lacks its key"):
        publish_history(blobs, "history-a", 4, SHOP, [nobody])
    with pytest.raises(ConfigurationError, match="no source name"):
        publish_history(blobs, "History/1", 4, SHOP, [])
    assert read_manifest(blobs) is None


def test_a_new_history_replaces_the_old_and_leaves_live_rows(blobs: FolderBlobStore) -> None:
    history(blobs)
    write_sealed(blobs, [row(0), row(1)])
    compact(blobs, LIVE)
    history(blobs, "history-b", 10)
    assert {source for source, _, _ in coordinates(blobs)} == {"history-b", "live-1"}
    assert not list(blobs.names("lake/history/history-a/"))
    same = read_manifest(blobs)
    history(blobs, "history-b", 10)
    assert read_manifest(blobs) == same
    with pytest.raises(ConfigurationError, match="partitions"):
        publish_history(blobs, "history-b", 8, SHOP, [])
    publish_history(blobs, "history-b", 4, ShopSettings(bought_window_days=0), [])
    changed = read_manifest(blobs)
    assert changed is not None
    assert changed.shop.bought_window_days == 0
    assert len(coordinates(blobs)) == 12


def test_a_shop_without_rows_is_an_empty_table(blobs: FolderBlobStore) -> None:
    assert read_rows(blobs).num_rows == 0
    publish_history(blobs, "history-empty", 4, SHOP, [])
    assert read_rows(blobs).schema.equals(LAKE_SCHEMA)
    assert read_range(blobs, "history-empty", 0, 0, 10) == []
    assert highest_sealed(blobs, "history-empty", 0) is None
    assert compact(blobs).files_written == 0


def test_a_slower_writer_of_the_manifest_is_refused(blobs: FolderBlobStore) -> None:
    write_manifest(blobs, LakeManifest(version=1, shop=SHOP))
    with pytest.raises(LakeConflict, match="run the command again"):
        write_manifest(blobs, LakeManifest(version=1, shop=ShopSettings(name="late")))
    held = read_manifest(blobs)
    assert held is not None
    assert held.shop == SHOP


def test_of_two_ingests_at_once_one_wins_whole(blobs: FolderBlobStore) -> None:
    def tables() -> Iterator[Any]:
        yield unnumbered_table([event(1, START)])
        history(blobs, "history-fast", 10)  # another process, while this one writes

    with pytest.raises(LakeConflict):
        publish_history(blobs, "history-slow", 4, SHOP, tables())
    assert {source for source, _, _ in coordinates(blobs)} == {"history-fast"}
    publish_history(blobs, "history-slow", 4, SHOP, [unnumbered_table([event(1, START)])])
    assert coordinates(blobs) == [("history-slow", partition_of("ann", 4), 0)]


LINES = [
    row(5),
    row(6, verdict=Verdict.DUPLICATE),
    row(7, verdict=Verdict.DEAD, reason="not JSON", body=b"\xff\xfe\x00 not json"),
    row(8, verdict=Verdict.DEAD, reason="two lines", body=b'{"a":\n1}\r\n'),
    row(9, verdict=Verdict.DEAD, reason="padded", body=b' {"a": 1} '),
    row(10, verdict=Verdict.DEAD, reason="a broken text", body=b'{"a": "\xff"}'),
    row(11, verdict=Verdict.DEAD, reason="empty", body=b""),
    skipped(12, 90, START),
]


@pytest.mark.parametrize("one", LINES, ids=lambda one: str(one.reason or one.verdict))
def test_a_landing_line_comes_back_byte_for_byte(one: LandingRow) -> None:
    line = landing_line(one)
    assert b"\n" not in line
    assert b"\r" not in line
    assert parse_landing_line(line) == one


@pytest.mark.parametrize("line", [b"", b"{}", b"[1]", b'{"source":"a"', b"\xff"])
def test_a_damaged_landing_line_is_named(line: bytes) -> None:
    with pytest.raises(CorruptRecord, match="restore"):
        parse_landing_line(line)


def test_sealed_rows_are_read_before_and_after_compaction(blobs: FolderBlobStore) -> None:
    write_sealed(blobs, LINES)
    assert read_range(blobs, "live-1", 0, 0, 999) == LINES
    assert highest_sealed(blobs, "live-1", 0) == Mark(90, START)
    sealed = read_rows(blobs)
    assert compact(blobs, LIVE).rows == len(LINES)
    assert read_rows(blobs).equals(sealed)
    for name in list(blobs.names(SEALED_FOLDER)):
        blobs.delete(name)
    again = read_range(blobs, "live-1", 0, 0, 999)
    assert [(r.sequence, r.verdict, r.reason, r.enqueued_at, r.last_sequence) for r in again] == [
        (r.sequence, r.verdict, r.reason, r.enqueued_at, r.last_sequence) for r in LINES
    ]
    assert [r.body for r in again[2:]] == [r.body for r in LINES[2:]]
    assert decode_event(again[0].body) == decode_event(LINES[0].body)
    assert highest_sealed(blobs, "live-1", 0) == Mark(90, START)
    assert [r.sequence for r in read_range(blobs, "live-1", 0, 50, 60)] == [12]
    assert read_range(blobs, "live-1", 0, 91, 99) == []


def test_sealing_refuses_rows_that_make_no_run(blobs: FolderBlobStore) -> None:
    for rows in ([], [row(2), row(1)], [row(1), row(1)], [row(0), row(1, partition=1)], [skipped(5, 9, START), row(9)]):
        with pytest.raises(ValueError, match=r"no rows|one partition|sort the rows"):
            write_sealed(blobs, rows)
    assert write_sealed(blobs, [row(1)]) == write_sealed(blobs, [row(1)])


def test_a_damaged_sealed_file_is_named(blobs: FolderBlobStore) -> None:
    name = write_sealed(blobs, [row(1), row(2)])
    whole = blobs.read(name)
    for broken in (whole[:-9], b"no gzip", gzip.compress(b"{}\n")):
        blobs.write(name, broken)
        with pytest.raises(CorruptRecord):
            read_rows(blobs)


def test_overlapping_sealed_files_count_once(blobs: FolderBlobStore) -> None:
    write_sealed(blobs, [row(number) for number in range(3)])
    write_sealed(blobs, [row(number) for number in range(6)])
    write_sealed(blobs, [row(number, partition=1) for number in range(2)])
    expected = [("live-1", 0, number) for number in range(6)] + [("live-1", 1, 0), ("live-1", 1, 1)]
    assert coordinates(blobs) == expected
    compact(blobs, LIVE)
    write_sealed(blobs, [row(number) for number in range(4, 8)])
    assert coordinates(blobs) == [*expected[:6], ("live-1", 0, 6), ("live-1", 0, 7), *expected[6:]]
    compact(blobs, LIVE)
    assert coordinates(blobs) == [*expected[:6], ("live-1", 0, 6), ("live-1", 0, 7), *expected[6:]]


@pytest.mark.parametrize("taken_in", [False, True])
def test_a_stream_made_anew_is_a_fault(blobs: FolderBlobStore, taken_in: bool) -> None:
    write_sealed(blobs, [row(0), row(1)])
    if taken_in:
        compact(blobs, LIVE)
        write_sealed(blobs, [row(1, START + 5 * DAY), row(2, START + 5 * DAY)])
    else:
        write_sealed(blobs, [row(1, START + 5 * DAY)])
    with pytest.raises(StreamRecreated, match="EVENT_SOURCE"):
        compact(blobs, LIVE)
    with pytest.raises(StreamRecreated, match="EVENT_SOURCE"):
        read_rows(blobs)


def test_rows_can_be_chosen_by_column_source_and_instant(blobs: FolderBlobStore) -> None:
    history(blobs)
    write_sealed(blobs, [row(number, START + number * DAY) for number in range(4)])
    assert read_rows(blobs, columns=["item_id", "sequence"]).column_names == ["sequence", "item_id"]
    assert coordinates(blobs, sources=["live-1"], until_enqueued_at=START + DAY) == [("live-1", 0, 0), ("live-1", 0, 1)]
    early = read_rows(blobs, until_enqueued_at=START + DAY - 1).column("enqueued_at").to_pylist()
    assert len(early) == 21
    assert max(early) < START + DAY
    with pytest.raises(ValueError, match="no column"):
        read_rows(blobs, columns=["colour"])


def test_a_gap_reads_only_the_files_that_hold_it(blobs: FolderBlobStore) -> None:
    history(blobs, count=200)
    watched = Watched(blobs.root)
    rows = read_range(watched, "history-a", 2, 10, 12)
    assert [found.sequence for found in rows] == [10, 11, 12]
    assert len([name for name in watched.was_read if name.endswith(".parquet")]) <= 2
    assert len([name for name in blobs.names("lake/history/") if name.endswith(".parquet")]) == 10


def test_publishing_history_may_be_killed_before_any_change(tmp_path: Path) -> None:
    kills = 0
    for kill in range(100):
        blobs = FolderBlobStore(tmp_path / f"kill{kill}")
        history(blobs, "history-old", 30)
        old = read_rows(blobs)
        try:
            history(Watched(blobs.root, kill), "history-new", 50)
        except KeyboardInterrupt:
            kills += 1
        else:
            break
        found = read_rows(blobs)
        assert found.equals(old) or set(found.column("source").to_pylist()) == {"history-new"}
        assert found.num_rows in {30, 50}
        history(blobs, "history-new", 50)
        assert read_rows(blobs).num_rows == 50
    assert kills >= 5


def test_exposures_come_back_in_order(blobs: FolderBlobStore) -> None:
    name = write_exposures(blobs, "worker-1", START + 60_000, [b'{"n":2}'])
    write_exposures(blobs, "worker-1", START, [b'{"n":0}', '{"n":1,"title":"caf\u00e9\u2028"}'.encode()])
    assert name == "lake/exposures/20231115/20231115T0001Z.worker-1.ndjson.gz"
    assert [found["n"] for found in read_exposures(blobs)] == [0, 1, 2]
    write_exposures(blobs, "worker.2", START, [b'{"n":3}'])
    blobs.write("lake/exposures/worker-0/20231114T2359Z.ndjson.gz", gzip.compress(b'{"n":-1}\n'))
    assert [found["n"] for found in read_exposures(blobs)] == [-1, 0, 1, 3, 2], "the earlier place is read as well"
    assert [worker for _, worker, _ in exposure_files(blobs)] == ["worker-0", "worker-1", "worker.2", "worker-1"]
    minute = exposure_files_of_minute(blobs, START)
    assert [exposure_lines_of(blobs, one)[-1] for one in minute] == [
        '{"n":1,"title":"caf\u00e9\u2028"}'.encode(),
        b'{"n":3}',
    ]
    assert exposure_files_of_minute(blobs, START - 60_000) == []
    assert exposure_lines_of(blobs, f"{name}-gone") == []
    with pytest.raises(ValueError, match="newline"):
        write_exposures(blobs, "worker-1", START, [b"{\n}"])
    with pytest.raises(ValueError, match="worker name"):
        write_exposures(blobs, "../up", START, [])
    blobs.write(name, b"?")
    with pytest.raises(CorruptRecord):
        list(read_exposures(blobs))
    with pytest.raises(CorruptRecord):
        exposure_lines_of(blobs, name)
