"""Compaction: sealed files become Parquet days, whatever stops it."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch import compact_lake
from batch.compact_lake import compact
from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import LakeConflict
from shared.events import (
    EventSource,
)
from shared.ingest.lake import (
    read_manifest,
    read_rows,
    write_sealed,
)
from shared.ingest.lake_sealed import sealed_files
from tests.unit.lake_builders import DAY, LIVE, START, Watched, coordinates, history, row, skipped


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobStore:
    return FolderBlobStore(tmp_path / "shop")


def fill_for_compaction(root: Path) -> None:
    """A lake after one night, with a second day's sealed files, an overlap, a skipped range and files to delete."""
    blobs = FolderBlobStore(root)
    history(blobs, count=5)
    write_sealed(blobs, [row(number, START + number * 1000) for number in range(10)])
    write_sealed(blobs, [row(number, START + number * 1000, partition=1) for number in range(4)])
    compact(blobs, LIVE)
    write_sealed(blobs, [row(number, START + number * 1000) for number in range(8, 14)])
    write_sealed(blobs, [skipped(14, 20, START + 14_000), row(21, START + 2 * DAY), row(22, START + 3 * DAY)])


def test_compaction_may_be_killed_before_any_change(tmp_path: Path) -> None:
    fill_for_compaction(tmp_path / "whole")
    whole = FolderBlobStore(tmp_path / "whole")
    expected = read_rows(whole)
    compact(whole, LIVE)
    kills = 0
    for kill in range(100):
        root = tmp_path / f"kill{kill}"
        fill_for_compaction(root)
        try:
            compact(Watched(root, kill), LIVE)
        except KeyboardInterrupt:
            kills += 1
        else:
            break
        blobs = FolderBlobStore(root)
        assert read_rows(blobs).equals(expected)
        compact(blobs, LIVE)
        assert read_rows(blobs).equals(expected)
        assert read_manifest(blobs) == read_manifest(whole)
        write_sealed(blobs, [row(23, START + 3 * DAY)])
        compact(blobs, LIVE)  # what the killed run left lying goes with the next one
        manifest = read_manifest(blobs)
        assert manifest is not None
        assert set(blobs.names("lake/days/")) == {one.name for one in manifest.files if one.source == "live-1"}
    assert kills >= 5


def test_sealed_files_go_a_day_after_they_were_taken_in(blobs: FolderBlobStore) -> None:
    write_sealed(blobs, [row(0, START)])
    compact(blobs, LIVE)
    write_sealed(blobs, [row(1, START + DAY)])
    assert compact(blobs, LIVE).sealed_deleted == 0
    write_sealed(blobs, [row(2, START + DAY + 1)])
    assert compact(blobs, LIVE).sealed_deleted == 1
    assert [file.first for file in sealed_files(blobs)] == [1, 2]
    again = compact(blobs, LIVE)
    assert (again.sealed_files, again.files_written, again.version) == (0, 0, 3)
    assert coordinates(blobs) == [("live-1", 0, number) for number in range(3)]


def test_small_files_of_a_day_are_merged(blobs: FolderBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sealed(blobs, [row(0), row(1)])
    compact(blobs, LIVE)
    write_sealed(blobs, [row(2)])
    assert compact(blobs, LIVE).files_merged == 1
    assert len(list(blobs.names("lake/days/"))) == 1
    monkeypatch.setattr(compact_lake, "SMALL_ROWS", 3)
    write_sealed(blobs, [row(3)])
    assert compact(blobs, LIVE).files_merged == 0
    assert len(list(blobs.names("lake/days/"))) == 2
    assert [sequence for _, _, sequence in coordinates(blobs)] == [0, 1, 2, 3]


def test_sources_keep_the_partition_counts_they_had(blobs: FolderBlobStore) -> None:
    write_sealed(blobs, [row(0)])
    compact(blobs, LIVE)
    write_sealed(blobs, [row(1), row(2)])
    write_sealed(blobs, [row(0, partition=2, source="their-hub")])
    compact(blobs, EventSource("live-1", (4,)))
    manifest = read_manifest(blobs)
    assert manifest is not None
    assert [entry.event_source() for entry in manifest.sources] == [
        EventSource("live-1", (2, 4)),
        EventSource("their-hub", (3,), ours=False),
    ]


def test_a_reader_that_loses_a_file_to_a_compaction_begins_anew(blobs: FolderBlobStore) -> None:
    write_sealed(blobs, [row(0)])
    compact(blobs, LIVE)
    write_sealed(blobs, [row(1)])

    class Overtaken(FolderBlobStore):
        def read(self, name: str) -> bytes:
            if name.endswith(".parquet") and sealed_files(blobs)[-1].first == 1:
                write_sealed(blobs, [row(2)])
                compact(blobs, LIVE)
            return super().read(name)

    assert read_rows(Overtaken(blobs.root)).column("sequence").to_pylist() == [0, 1, 2]


def test_a_lost_or_changed_file_is_a_conflict_and_no_shorter_lake(blobs: FolderBlobStore) -> None:
    history(blobs)
    name = next(blobs.names("lake/history/"))
    body = blobs.read(name)
    blobs.write(name, body[:-1] + b"?")
    with pytest.raises(LakeConflict, match="checksum"):
        read_rows(blobs)
    blobs.delete(name)
    with pytest.raises(LakeConflict, match="lacks a file"):
        read_rows(blobs)


def test_the_command_prints_totals_and_refuses_a_missing_folder(
    blobs: FolderBlobStore, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_sealed(blobs, [row(0), row(1)])
    assert compact_lake.main(["--data", str(blobs.root)]) == 0
    assert "2 new rows from 1 sealed files" in capsys.readouterr().out
    assert compact_lake.main(["--data", str(blobs.root)]) == 0
    assert "nothing new" in capsys.readouterr().out
    assert compact_lake.main(["--data", str(tmp_path / "absent")]) == 2
    assert "ingest or generate a shop first" in capsys.readouterr().err
    blobs.write("lake/lake_manifest.json", b"{")
    assert compact_lake.main(["--data", str(blobs.root)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
