from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from batch.ingest_events import main
from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import InfrastructureFault
from shared.events import EventType, partition_of
from shared.ingest.lake import LakeManifest, ShopSettings, events_of_table, read_manifest, read_rows

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
BODY = "".join(
    f"{536365 + number // 3},8512{number % 4},CREAM LANTERN {number % 4},{number + 1},"
    f"{12 if number < 20 else 3}/{number % 9 + 1}/201{0 if number < 20 else 1} 8:26,2.55,{17850 + number % 5},France\n"
    for number in range(40)
)
REJECTED = "C536379,85123,CREAM LANTERN,-1,12/1/2010 9:41,27.50,14527,United Kingdom\n"


@pytest.fixture
def retail(tmp_path: Path) -> Path:
    path = tmp_path / "retail.csv"
    path.write_text(HEADER + BODY + REJECTED)
    return path


def ingest(path: Path, out: Path, *more: str) -> int:
    return main(["--format", "online_retail", "--path", str(path), "--out", str(out), *more])


def manifest_of(out: Path) -> LakeManifest:
    manifest = read_manifest(FolderBlobStore(out))
    assert manifest is not None
    return manifest


def test_a_file_becomes_history(retail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shop"
    assert ingest(retail, out) == 0
    told = capsys.readouterr().out
    assert "clean: 40 order lines, 5 customers, 4 products, 14 orders" in told
    assert "1  cancellation" in told
    manifest = manifest_of(out)
    (source,) = manifest.sources
    assert manifest.shop == ShopSettings(
        name="Online Retail", time_zone="Europe/London", bought_window_days=0, positives=("purchase",), currency="GBP"
    )
    table = read_rows(FolderBlobStore(out))
    events = [event for event in events_of_table(table) if event is not None]
    bought = [event for event in events if event.event_type is EventType.PURCHASE]
    assert len(bought) == 40
    assert sum(event.quantity or 0 for event in bought) == sum(range(1, 41))
    assert table.column("partition").to_pylist() == [partition_of(event.partition_key, 4) for event in events]
    known: set[str] = set()
    for event in sorted(events, key=lambda event: event.occurred_at):
        if event.event_type is EventType.ITEM_UPDATED:
            known.add(event.item_id or "")
        else:
            assert event.item_id in known
    rejects = (out / "lake" / "rejects" / f"{source.name}.csv").read_text().splitlines()
    assert rejects[1].startswith("C536379,")
    assert rejects[1].endswith(",cancellation")


def test_the_same_content_again_does_nothing(retail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shop"
    assert ingest(retail, out) == 0
    before = manifest_of(out)
    assert ingest(retail, out) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert manifest_of(out) == before
    assert ingest(retail, out, "--bought-window-days", "7") == 0
    after = manifest_of(out)
    assert (after.shop.bought_window_days, after.files) == (7, before.files)


def test_other_content_replaces_it(retail: Path, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    assert ingest(retail, out) == 0
    old = manifest_of(out).sources[0].name
    assert ingest(retail, out, "--shift-weeks", "3") == 0
    (new,) = manifest_of(out).sources
    assert new.name != old
    assert new.shift_weeks == 3
    left = list(FolderBlobStore(out).names("lake/"))
    assert not [name for name in left if old in name]
    assert len([name for name in left if name.startswith("lake/rejects/")]) == 1


def test_auto_ends_the_data_in_the_week_before_now(retail: Path, tmp_path: Path) -> None:
    assert ingest(retail, tmp_path / "shop", "--shift-weeks", "auto") == 0
    newest = max(read_rows(FolderBlobStore(tmp_path / "shop")).column("enqueued_at").to_pylist())
    behind_ms = datetime.now(UTC).timestamp() * 1000 - newest
    assert 0 <= behind_ms < 7 * 24 * 3600 * 1000 + 3600 * 1000


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shift-weeks", "soon"], "whole number of weeks or auto"),
        (["--shift-weeks", "99999999"], "use auto"),
        (["--time-zone", "Mars/Olympus"], "IANA"),
        (["--time-zone", "../etc/passwd"], "IANA"),
        (["--bought-window-days", "-1"], "0 or more"),
        (["--partition-count", "0"], "1 to 1024"),
    ],
)
def test_bad_arguments_end_with_2_and_one_line(
    retail: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ingest(retail, tmp_path / "shop", *more) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "shop").exists()


def test_bad_input_ends_with_2_and_one_line(retail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shop"
    assert ingest(tmp_path / "absent.csv", out) == 2
    assert "no file" in capsys.readouterr().err
    retail.write_text(HEADER + REJECTED)
    assert ingest(retail, out) == 2
    assert "no usable order line (1 cancellation)" in capsys.readouterr().err
    retail.write_text(HEADER + BODY)
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert ingest(retail, blocked) == 2
    told = capsys.readouterr().err
    assert "cannot write" in told
    assert told.count("\n") == 1


def test_help_and_unknown_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--shift-weeks" in capsys.readouterr().out
    assert main(["--format", "csv"]) == 2


@pytest.mark.parametrize("fault", [InfrastructureFault("disk full; make room"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_history(
    fault: BaseException, retail: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "shop"
    assert ingest(retail, out) == 0
    before, rows = manifest_of(out), read_rows(FolderBlobStore(out))
    writes = 0
    whole = FolderBlobStore.write

    def failing(store: FolderBlobStore, name: str, data: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes > 4:
            raise fault
        whole(store, name, data)

    with monkeypatch.context() as patched:
        patched.setattr(FolderBlobStore, "write", failing)
        assert ingest(retail, out, "--shift-weeks", "1") == (130 if isinstance(fault, KeyboardInterrupt) else 2)
    assert manifest_of(out) == before
    assert read_rows(FolderBlobStore(out)).equals(rows)
    assert ingest(retail, out, "--shift-weeks", "1") == 0
    assert read_rows(FolderBlobStore(out)).num_rows == rows.num_rows
