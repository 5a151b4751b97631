from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch import table_reading
from batch.ingest_events import main
from batch.table_events import SeenRows
from batch.table_reading import MOST_LINES_OF_A_ROW
from shared.adapters.folder_blob import FolderBlobStore
from shared.ingest.lake import read_rows
from tests.unit.table_shop import (
    GOOD,
    HEADER,
    MAPPING,
    as_rows,
    behaviour_of,
    ingest,
    rejects_of,
    write,
)


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "laden.toml"
    path.write_text(MAPPING, encoding="utf-8")
    return path


BAD = {
    "28.10.2024 10:00:00;geträumt;A-1;;;1,00;;k1;": ("Aktion", "event name that the mapping does not have"),
    "28.10.2024 10:00:00;;A-1;;;1,00;;k1;": ("Aktion", "missing event"),
    "28.10.2024 10:00:00;gesehen;A-1;;;1,00;;;": ("Kunde", "missing user"),
    "28.10.2024 10:00:00;gesehen;A-1;;;1,00;;NULL;": ("Kunde", "missing user"),
    "28.10.2024 10:00:00;gesehen;;;;1,00;;k1;": ("Artikel", "missing item"),
    "28.10.2024 10:00:00;gesehen;a/b;;;1,00;;k1;": ("Artikel", "item holds a / or a control character"),
    f"28.10.2024 10:00:00;gesehen;{'x' * 129};;;1,00;;k1;": ("Artikel", "item is longer than 128 bytes"),
    f"28.10.2024 10:00:00;gesehen;A-1;;;1,00;;{'ü' * 65};": ("Kunde", "user is longer than 128 bytes"),
    "28/10/2024;gesehen;A-1;;;1,00;;k1;": ("Zeit", "time is not %d.%m.%Y %H:%M:%S or iso or epoch_s"),
    ";gesehen;A-1;;;1,00;;k1;": ("Zeit", "missing time"),
    "-1;gesehen;A-1;;;1,00;;k1;": ("Zeit", "time before 1970 (a placeholder such as -1?)"),
    "1730019;gesehen;A-1;;;1,00;;k1;": ("Zeit", "time before 1990 (another unit than the mapping says?)"),
    "1730019720000;gesehen;A-1;;;1,00;;k1;": (
        "Zeit", "time in the future (another unit or zone than the mapping says?)",
    ),
    "99999999999999999999;gesehen;A-1;;;1,00;;k1;": ("Zeit", "time is not %d.%m.%Y %H:%M:%S or iso or epoch_s"),
    "01.01.2190 10:00:00;gesehen;A-1;;;1,00;;k1;": (
        "Zeit", "time in the future (another unit or zone than the mapping says?)",
    ),
    "28.10.2024 10:00:00;gesehen;A-1;;;-1,00;;k1;": ("Preis", "price negative"),
    "28.10.2024 10:00:00;gesehen;A-1;;;1.00;;k1;": ("Preis", 'price is no number (decimal is ",", thousands "")'),
    "28.10.2024 10:00:00;gesehen;A-1;;;1,00;0;k1;": ("Menge", "quantity not positive"),
    "28.10.2024 10:00:00;gesehen;A-1;;;1,00;1,5;k1;": ("Menge", "quantity is no whole number up to 1,000,000"),
    "28.10.2024 10:00:00;gesehen;A-1;;;1,00;viel;k1;": ("Menge", "quantity is no number"),
    "28.10.2024 10:00:00;gesehen;A-1": ("", "3 fields where the header has 9"),
    "28.10.2024 10:00:00;gesehen;A-1;;;1,00;;k1;;extra": ("", "10 fields where the header has 9"),
    '28.10.2024 10:00:00;gesehen;"A-1"x;;;1,00;;k1;': ("", "not readable as CSV: ';' expected after '\"'"),
    "27.10.2024 10:00:05;Korb;A-1;Teekanne;Küche > Kannen;12,50;1;k1;": ("", "equals an earlier row"),
}  # fmt: skip


def test_what_is_wrong_is_rejected_with_its_line_column_and_reason(
    mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shop"
    path = write(tmp_path / "log.csv", HEADER + GOOD + "".join(f"{line}\n" for line in BAD))
    assert ingest(path, mapping, out) == 0
    told = capsys.readouterr().out
    assert f"rows: {4 + len(BAD)} = 4 events + {len(BAD)} rejected" in told
    rejects = rejects_of(out)
    assert [(row["column"], row["reason"]) for row in rejects] == list(BAD.values())
    assert [int(row["line"]) for row in rejects] == list(range(6, 6 + len(BAD)))
    assert rejects[0]["Aktion"] == "geträumt"
    assert rejects[-3]["surplus"] == "extra"
    assert "line 14, Zeit: '28/10/2024'" in told
    assert len(behaviour_of(out)) == 4


def test_the_size_of_a_batch_makes_no_difference(
    mapping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEADER + GOOD + "".join(f"{line}\n" for line in BAD) + GOOD + GOOD.replace("B-2", "B-3")
    for ending in (".csv", ".parquet"):
        path = tmp_path / f"log{ending}"
        if ending == ".csv":
            write(path, text)
        else:
            pq.write_table(pa.Table.from_pylist(as_rows(HEADER + GOOD + GOOD + GOOD.replace("B-2", "B-3"))), path)
        found = []
        for rows in (10**6, 3):
            monkeypatch.setattr(table_reading, "BATCH_ROWS", rows)
            out = tmp_path / f"shop{ending}{rows}"
            assert ingest(path, mapping, out) == 0
            found.append((read_rows(FolderBlobStore(out)), rejects_of(out)))
        assert found[0][0].equals(found[1][0])
        assert found[0][1] == found[1][1]
        assert [row["reason"] for row in found[0][1]].count("equals an earlier row") >= 4


def test_rows_that_came_before_are_known_among_many() -> None:
    draw = np.random.default_rng(5)
    seen, known = SeenRows(), set[int]()
    for _ in range(40):
        hashes = draw.integers(0, 3000, draw.integers(0, 120)).astype(np.uint64)
        expected = []
        for one in hashes.tolist():
            expected.append(one in known)
            known.add(one)
        assert seen.repeated(hashes).tolist() == expected


def test_ids_of_the_shop_are_kept_and_repeated_ones_rejected(mapping: Path, tmp_path: Path) -> None:
    mapping.write_text(MAPPING.replace('order = "Bestellung"', 'id = "Bestellung"'), encoding="utf-8")
    lines = [f"2024-10-0{day}T10:00:00Z;gesehen;A-1;;;;;k1;e{day % 2}\n" for day in (1, 2, 3)]
    out = tmp_path / "shop"
    assert ingest(write(tmp_path / "log.csv", HEADER + "".join(lines)), mapping, out) == 0
    assert [event.event_id for event in behaviour_of(out)] == ["e1", "e0"]
    (reject,) = rejects_of(out)
    assert reject["reason"] == "event id of an earlier row"


def test_equal_rows_may_be_kept(mapping: Path, tmp_path: Path) -> None:
    mapping.write_text(MAPPING.replace("[events]", '[events]\nduplicates = "keep"', 1), encoding="utf-8")
    out = tmp_path / "shop"
    assert ingest(write(tmp_path / "log.csv", HEADER + GOOD + GOOD), mapping, out) == 0
    events = behaviour_of(out)
    assert len(events) == 8
    assert len({event.event_id for event in events}) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEADER, "holds no rows"),
        (
            HEADER.replace("Kunde", "Wer") + GOOD,
            "line 1 has no column 'Kunde', which events.columns.user names; it has",
        ),
        (HEADER.replace("Titel", "Kunde") + GOOD, "line 1 has more than one column 'Kunde'"),
        (HEADER + "\n".join(list(BAD)[:-1]), "no usable row"),
        (HEADER + GOOD + '1730019720;gesehen;"A-1' + "\nx" * (MOST_LINES_OF_A_ROW + 1), "line 6: a quote is opened"),
    ],
)
def test_a_file_that_is_none_ends_with_2_and_one_line(
    text: str, message: str, mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ingest(write(tmp_path / "log.csv", text), mapping, tmp_path / "shop") == 2
    told = capsys.readouterr().err
    assert message in told
    assert "log.csv" in told or "no usable row" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "shop").exists()


def test_text_in_another_encoding_names_its_line(
    mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes((HEADER + GOOD.replace("Küche", "Kueche") * 3000).encode() + b"Caf\xe9\n")
    assert ingest(path, mapping, tmp_path / "shop") == 2
    assert "line 12002, byte 4 (0xe9) is not utf-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('time = "Zeit"', "", "missing required field `time` - at `$.events.columns`"),
        ('time = "Zeit"', "time = 3", "Expected `str`, got `int` - at `$.events.columns.time`"),
        ('user = "Kunde"', 'user = "Kunde"\ncolour = "x"', "unknown field `colour`"),
        ('Korb = "cart"', 'Korb = "basket"', "events.names.Korb is 'basket'; it must be view, cart"),
        ("Europe/Berlin", "Berlin", "'Berlin' is no IANA time zone"),
        ('"%d.%m.%Y %H:%M:%S"', '"%Q"', "events.time_format '%Q'"),
        ('"%d.%m.%Y %H:%M:%S"', '"epoch"', "events.time_format 'epoch'"),
        ('"EUR"', '"euro"', "three capitals"),
        ('decimal = ","', 'decimal = ","\nthousands = ","', "must differ"),
        ('decimal = ","', 'decimal = ","\nencoding = "klingon"', "'klingon' is unknown"),
        ('event = "Aktion"', "", "events.columns.event or events.constants.event"),
        ("[shop]", "[shop", "line 2"),
    ],
)
def test_a_mapping_that_is_wrong_names_its_place(
    old: str, new: str, message: str, *, mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mapping.write_text(MAPPING.replace(old, new, 1), encoding="utf-8")
    assert ingest(write(tmp_path / "log.csv", HEADER + GOOD), mapping, tmp_path / "shop") == 2
    told = capsys.readouterr().err
    assert message in told
    assert "laden.toml" in told
    assert told.count("\n") == 1


def test_a_dry_run_shows_and_writes_nothing(mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "log.csv", HEADER + GOOD * 5 + "".join(f"{line}\n" for line in BAD))
    assert main(["--format", "table", "--path", str(path), "--mapping", str(mapping), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "the first 4 events, mapped:" in told
    assert "event_id=line-4, event_type=purchase, occurred_at=2024-10-27T09:01:00+00:00, user_id=k1" in told
    assert f"rows: {20 + len(BAD)} = 4 events + {16 + len(BAD)} rejected" in told
    assert "price negative" in told
    assert "nothing was written" in told
    assert sorted(one.name for one in tmp_path.iterdir()) == ["laden.toml", "log.csv"]


def test_wrong_use_ends_with_2(mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "log.csv", HEADER + GOOD))
    table = ["--format", "table", "--path", path]
    for arguments, message in (
        ([*table, "--mapping", str(mapping)], "give --out"),
        ([*table, "--out", str(tmp_path / "o")], "wants --mapping"),
        ([*table, "--mapping", str(tmp_path / "absent.toml"), "--dry-run"], "no mapping file"),
        ([*table, "--mapping", str(mapping), "--out", "http://files.example/account/shop"], "https"),
        ([*table, "--mapping", str(mapping), "--out", "https://files.example"], "names no container"),
        (["--format", "table", "--path", "log.xlsx", "--dry-run"], "log.xlsx"),
        (["--format", "retailrocket", "--path", path, "--suggest", "--out", str(tmp_path / "o")], "for --format table"),
        (["--format", "online_retail", "--path", path, "--dry-run"], "--dry-run is for"),
    ):
        assert main(arguments) == 2, arguments
        assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz", "log.parquet", "log.parquet.gz"])
def test_a_file_that_is_cut_off_is_said_to_be(
    name: str, mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "Kunde": f"k{place}"} for place, row in enumerate(as_rows(HEADER + GOOD) * 500)]
    if "parquet" in name:
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=100)
        data = sink.getvalue()
    elif "json" in name:
        data = "\n".join(json.dumps(row) for row in rows).encode()
    else:
        data = (HEADER + "".join(f"{';'.join(row.values())}\n" for row in rows)).encode()
    whole = gzip.compress(data) if name.endswith(".gz") else data
    path = tmp_path / name
    path.write_bytes(whole)
    assert ingest(path, mapping, tmp_path / "shop") == 0
    harmed = bytearray(whole)
    harmed[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    for bad in (whole[: len(whole) // 2], bytes(harmed)):
        path.write_bytes(bad)
        assert ingest(path, mapping, tmp_path / "other") == 2
        told = capsys.readouterr().err
        assert any(one in told for one in ("damaged or cut off", "cannot be read as Parquet", "is not utf-8"))
        assert told.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_a_folder_is_no_file(mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").mkdir()
    assert ingest(tmp_path / "log.csv", mapping, tmp_path / "shop") == 2
    assert "log.csv cannot be read: Is a directory" in capsys.readouterr().err
