from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.ingest_events import main
from shared.adapters.folder_blob import FolderBlobStore
from shared.events import BEHAVIOUR, Event, EventType
from shared.ingest.lake import ShopSettings, events_of_table, read_manifest, read_rows

REAL = Path(__file__).parents[3] / "shared" / "data" / "retailrocket_buyers_2174.parquet"
EVENTS = """timestamp,visitorid,event,itemid,transactionid
1433221332117,257597,view,355908,
1433224214164,992329,view,248676,
1433224220000,992329,addtocart,248676,
1433224230000,992329,transaction,248676,4000
1433224230000,992329,transaction,355908,4000
1433224230000,992329,transaction,355908,4000
-1,1,view,2,
1433224240000,1,hover,2,
"""
PROPERTIES = """timestamp,itemid,property,value
1433041200000,248676,categoryid,1338
1433041200000,248676,790,n552.000 639502
1433041200000,248676,available,1
1433646000000,248676,available,0
1433646000000,248676,categoryid,1338
1434250800000,248676,available,1
1433646000000,355908,categoryid,99
1433041200000,777,categoryid,1338
"""
TREE = "categoryid,parentid\n1338,1016\n1016,213\n213,\n"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "published" / "events.csv"
    path.parent.mkdir()
    path.write_text(EVENTS)
    return path


def ingest(path: Path, out: Path, *more: str) -> int:
    return main(["--format", "retailrocket", "--path", str(path), "--out", str(out), *more])


def events_of(out: Path) -> list[Event]:
    found = [event for event in events_of_table(read_rows(FolderBlobStore(out))) if event is not None]
    return sorted(found, key=lambda event: (event.occurred_at, event.event_type is not EventType.ITEM_UPDATED))


def test_the_publishers_file(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shop"
    assert ingest(published, out) == 0
    told = capsys.readouterr().out
    assert "rows: 8 = 5 events + 3 rejected" in told
    manifest = read_manifest(FolderBlobStore(out))
    assert manifest is not None
    assert manifest.shop == ShopSettings(name="RetailRocket", time_zone="UTC", currency="XXX")
    events = events_of(out)
    behaviour = [event for event in events if event.event_type in BEHAVIOUR]
    assert [(one.event_type.value, one.user_id, one.item_id) for one in behaviour] == [
        ("view", "257597", "355908"), ("view", "992329", "248676"), ("cart", "992329", "248676"),
        ("purchase", "992329", "248676"), ("purchase", "992329", "355908"),
    ]  # fmt: skip
    assert behaviour[0].occurred_at_ms == 1433221332117
    assert behaviour[-1].context == {"order": "4000"}
    assert [(one.item_id, (one.changes or {})["title"]) for one in events if one not in behaviour] == [
        ("355908", "355908"), ("248676", "248676"),
    ]  # fmt: skip
    text = (out / "lake" / "rejects" / f"{manifest.sources[0].name}.csv").read_text()
    assert [row["reason"] for row in csv.DictReader(io.StringIO(text))] == [
        "equals an earlier row", "time before 1970 (a placeholder such as -1?)",
        "event name that the mapping does not have",
    ]  # fmt: skip


def test_properties_beside_it_are_the_catalogue(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (published.parent / "item_properties_part1.csv").write_text(PROPERTIES)
    (published.parent / "category_tree.csv").write_text(TREE)
    out = tmp_path / "shop"
    assert ingest(published, out) == 0
    assert "items: item_properties_part1.csv, category_tree.csv" in capsys.readouterr().out
    updates = [
        (one.item_id, one.occurred_at_ms, {k: v for k, v in (one.changes or {}).items() if k != "arrived_at"})
        for one in events_of(out)
        if one.event_type is EventType.ITEM_UPDATED
    ]
    assert updates == [
        ("355908", 1433221332116, {"title": "355908"}),
        ("248676", 1433224214163, {"title": "248676", "categories": ["213", "1016", "1338"], "hidden": False}),
        ("248676", 1433646000000, {"hidden": True}),
        ("355908", 1433646000000, {"categories": ["99"]}),
        ("248676", 1434250800000, {"hidden": False}),
    ]  # fmt: skip
    # What was learnt later moves with the events.
    assert ingest(published, out, "--shift-weeks", "1") == 0
    assert max(one.occurred_at_ms for one in events_of(out)) == 1434250800000 + 7 * 24 * 3600 * 1000


def test_without_stamps_the_test_rows_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {
        "user": pa.array([0, 0, 1], pa.int32()), "item": pa.array([4, 5, 5], pa.int32()),
        "event": pa.array(["view", "transaction", "addtocart"], pa.large_string()),
        "ts": pa.array([1430622300, -1, 1430622301]), "split": ["train", "test", "train"],
    }  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "some.parquet")
    assert ingest(tmp_path / "some.parquet", tmp_path / "shop") == 0
    assert "rows: 3 = 2 events + 1 rejected" in capsys.readouterr().out
    assert [one.occurred_at_ms for one in events_of(tmp_path / "shop") if one.event_type in BEHAVIOUR] == [
        1430622300000, 1430622301000,
    ]  # fmt: skip


@pytest.mark.skipif(not REAL.exists(), reason="the project's real data does not lie beside this checkout")
def test_the_real_buyers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest(REAL, tmp_path / "shop") == 0
    told = capsys.readouterr().out
    assert "rows: 99,555 = 97,381 events + 2,174 rejected" in told
    assert "9,551  purchase" in told
    assert "2,174  time before 1970" in told


def test_another_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events.csv"
    path.write_text("a,b\n1,2\n")
    assert ingest(path, tmp_path / "shop") == 2
    assert "no column 'timestamp'" in capsys.readouterr().err
    (tmp_path / "events.parquet").write_bytes(b"PAR1 not really")
    assert ingest(tmp_path / "events.parquet", tmp_path / "shop") == 2
    assert "cannot be read as Parquet" in capsys.readouterr().err
    path.write_text(EVENTS)
    (tmp_path / "item_properties.csv").write_text("timestamp,itemid,property,value\n1,2\n")
    assert ingest(path, tmp_path / "shop") == 2
    assert "item_properties.csv cannot be read" in capsys.readouterr().err
