from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.build_interactions import build_interactions
from shared.adapters.folder_blob import FolderBlobStore
from shared.events import EventType, from_ms, partition_of
from shared.ingest.lake import ShopSettings, events_of_table, read_rows
from tests.unit.table_shop import (
    GOOD,
    HEADER,
    MAPPING,
    as_rows,
    behaviour_of,
    events_of,
    ingest,
    manifest_of,
    rejects_of,
    write,
)


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "laden.toml"
    path.write_text(MAPPING, encoding="utf-8")
    return path


def test_a_table_becomes_history_that_the_night_reads(
    mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, lines = random.Random(3), []
    for number in range(900):
        day, item = 1 + number * 28 // 900, chance.randrange(12)
        lines.append(
            f"{day:02}.06.2024 {chance.randrange(24):02}:{chance.randrange(60):02}:{number % 60:02};"
            f"{chance.choice(['gesehen', 'gesehen', 'Korb', 'gekauft', 'Suche'])};A-{item};Titel {item};"
            f"Haus > Gruppe {item % 3};{item + 1},00;1;k{chance.randrange(30)};\n"
        )
    chance.shuffle(lines)
    path = write(tmp_path / "log.csv", HEADER + "".join(lines))
    out = tmp_path / "shop"
    assert ingest(path, mapping, out) == 0
    told = capsys.readouterr().out
    left_out = sum("Suche" in line for line in lines)
    assert f"rows: 900 = {900 - left_out} events + 0 rejected + {left_out} left out by the mapping" in told
    summary = build_interactions(out)
    assert (summary.interactions, summary.items, summary.time_zone) == (900 - left_out, 12, "Europe/Berlin")
    assert summary.dropped == {"redacted": 0, "erased_user": 0, "unknown_item": 0} or not any(summary.dropped.values())
    known: set[str] = set()
    for event in events_of(out):
        if event.event_type is EventType.ITEM_UPDATED:
            known.add(event.item_id or "")
        else:
            assert event.item_id in known


def test_every_mapped_cell_arrives(mapping: Path, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    assert ingest(write(tmp_path / "log.csv", HEADER + GOOD), mapping, out) == 0
    assert manifest_of(out).shop == ShopSettings(
        name="Laden", time_zone="Europe/Berlin", bought_window_days=7, currency="EUR"
    )
    viewed, carted, bought, other = behaviour_of(out)
    assert [one.event_type for one in (viewed, carted, bought, other)] == ["view", "cart", "purchase", "view"]
    # The clocks went back that night: 10:00 in Berlin is 09:00 UTC already.
    assert [f"{one.occurred_at:%H:%M:%S}" for one in (viewed, carted, bought, other)] == [
        "09:00:00", "09:00:05", "09:01:00", "09:02:00",
    ]  # fmt: skip
    assert (bought.user_id, bought.item_id, bought.quantity, bought.price_cents) == ("k1", "A-1", 2, 1250)
    assert (bought.context, viewed.context, viewed.quantity) == ({"order": "B7"}, None, None)
    updates = [event for event in events_of(out) if event.event_type is EventType.ITEM_UPDATED]
    catalogue = {str(event.item_id): event.changes or {} for event in updates}
    assert catalogue["A-1"] | {"arrived_at": ""} == {
        "title": "Teekanne", "categories": ["Küche", "Kannen"], "price_cents": 1250, "arrived_at": "",
    }  # fmt: skip
    assert catalogue["B-2"]["title"] == "B-2"
    for event, partition in zip(
        events_of_table(read_rows(FolderBlobStore(out))),
        read_rows(FolderBlobStore(out)).column("partition").to_pylist(),
        strict=True,
    ):
        assert event is not None
        assert partition == partition_of(event.partition_key, 4)


def test_the_same_content_again_does_nothing_and_a_shift_replaces_it(
    mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, path = tmp_path / "shop", write(tmp_path / "log.csv", HEADER + GOOD)
    assert ingest(path, mapping, out) == 0
    before, rows = manifest_of(out), read_rows(FolderBlobStore(out))
    capsys.readouterr()
    assert ingest(path, mapping, out) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert manifest_of(out) == before
    assert ingest(path, mapping, tmp_path / "elsewhere") == 0
    assert read_rows(FolderBlobStore(tmp_path / "elsewhere")).equals(rows)
    assert ingest(path, mapping, out, "--shift-weeks", "10") == 0
    (source,) = manifest_of(out).sources
    assert source.shift_weeks == 10
    # Winter by then: the wall clock's hour stands, the instant's as well.
    assert f"{behaviour_of(out)[0].occurred_at:%Y-%m-%d %H:%M}" == "2025-01-05 09:00"
    assert ingest(path, mapping, out, "--shift-weeks", "22") == 0
    assert f"{behaviour_of(out)[0].occurred_at:%Y-%m-%d %H:%M}" == "2025-03-30 08:00"
    assert ingest(path, mapping, out, "--shift-weeks", "4000") == 2
    assert "beyond now" in capsys.readouterr().err
    assert ingest(path, mapping, out, "--shift-weeks", "auto") == 0
    behind = datetime.now(UTC) - behaviour_of(out)[-1].occurred_at
    assert 0 <= behind.total_seconds() < 7 * 24 * 3600 + 3600


def test_rows_in_any_order_come_out_in_time_order_and_equal_instants_in_file_order(
    mapping: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shop"
    lines = [f"2024-10-{day:02}T10:00:00Z;gesehen;A-{day};;;;;k{day % 3};\n" for day in (5, 1, 9, 1, 3)]
    lines[3] = lines[3].replace("A-1", "A-7")
    assert ingest(write(tmp_path / "log.csv", HEADER + "".join(lines)), mapping, out, "--partition-count", "1") == 0
    assert [event.item_id for event in behaviour_of(out)] == ["A-1", "A-7", "A-3", "A-5", "A-9"]
    at = read_rows(FolderBlobStore(out)).column("occurred_at").to_pylist()
    assert at == sorted(at)


@pytest.mark.parametrize(
    ("encoding", "change"), [("utf-8-sig", ""), ("latin-1", 'encoding = "latin-1"'), ("utf-16", 'encoding = "utf-16"')]
)
def test_encodings(encoding: str, change: str, mapping: Path, tmp_path: Path) -> None:
    mapping.write_text(MAPPING.replace("[events]", f"[events]\n{change}", 1), encoding="utf-8")
    text = (HEADER + GOOD).replace(" €", "")
    assert ingest(write(tmp_path / "log.csv", text, encoding), mapping, tmp_path / "shop") == 0
    assert "Küche" in json.dumps([event.changes for event in events_of(tmp_path / "shop")], ensure_ascii=False)


def test_windows_line_ends_quotes_and_breaks_inside_a_cell(mapping: Path, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    text = (HEADER + GOOD).replace("Teekanne;", '"Tee;kanne\n""groß""";', 1).replace("\n", "\r\n")
    assert ingest(write(tmp_path / "log.csv", f"{text}kaputt\r\n"), mapping, out) == 0
    titles = [(event.changes or {}).get("title") for event in events_of(out)]
    assert 'Tee;kanne\r\n"groß"' in titles
    (reject,) = rejects_of(out)
    assert reject["line"] == "7", "a line is a line of the file, not a row"


@pytest.mark.parametrize("ending", [".csv.gz", ".jsonl", ".ndjson.gz", ".parquet"])
def test_other_formats_make_the_same_events(ending: str, mapping: Path, tmp_path: Path) -> None:
    text = HEADER + GOOD
    assert ingest(write(tmp_path / "log.csv", text), mapping, tmp_path / "csv") == 0
    path = tmp_path / f"log{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(as_rows(text)), path)
    else:
        lines = [json.dumps({name: cell or None for name, cell in row.items()}) for row in as_rows(text)]
        data = (text if "csv" in ending else "\n".join(lines)).encode()
        path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    assert ingest(path, mapping, tmp_path / "other") == 0
    names = ["event_type", "occurred_at", "user_id", "item_id", "quantity", "price_cents", "context", "changes"]
    tables = [read_rows(FolderBlobStore(tmp_path / one)).select(names) for one in ("csv", "other")]
    assert tables[0].equals(tables[1])


def test_typed_parquet_and_nested_json(tmp_path: Path) -> None:
    columns = 'time = "at"\nuser = "user.id"\nitem = "item"\nquantity = "n"\nprice = "p"\nsession = "s"\n'
    simple = f'[events]\n[events.constants]\nevent = "purchase"\n[events.columns]\n{columns}'
    mapping = write(tmp_path / "m.toml", simple)
    lines = [
        '{"at": "2024-05-01T10:00:00+02:00", "user": {"id": 17}, "item": 5, "n": 2, "p": 2.55, "s": "x"}',
        '{"at": "2024-05-01T10:00:00+02:00", "user": {"id": null}, "item": 5}',
        '[1]',
        '{"at": ',
        "",
        '{"at": "2024-05-01T10:00:01", "user": {"id": "\\ud800"}, "item": 6}',
        '{"at": "2024-05-01T10:00:01", "user": {"id": true}, "item": 6, "p": 1e1}',
    ]  # fmt: skip
    assert ingest(write(tmp_path / "log.jsonl", "\n".join(lines)), mapping, tmp_path / "json") == 0
    first, second = behaviour_of(tmp_path / "json")
    assert (first.user_id, first.item_id, first.price_cents, first.quantity) == ("17", "5", 255, 2)
    assert f"{first.occurred_at:%H:%M}" == "08:00"
    assert (second.user_id, second.price_cents) == ("true", 1000)
    assert [(row["line"], row["reason"].partition(":")[0]) for row in rejects_of(tmp_path / "json")] == [
        ("2", "missing user"), ("3", "not a JSON object"), ("4", "not a JSON object"),
        ("6", "not a JSON object"),
    ]  # fmt: skip
    frame = pd.DataFrame(
        {
            "at": pd.to_datetime(["2024-05-01 10:00:00.5", "2024-05-01 11:00:00.0"]).tz_localize("Europe/Berlin"),
            "user.id": [17.0, None], "item": pd.Categorical(["5", "6"]), "n": [2, 3], "p": [2.55, 1.0],
            "s": [b"x", b"y"],
        }
    )  # fmt: skip
    frame.to_parquet(tmp_path / "log.parquet", index=False)
    assert ingest(tmp_path / "log.parquet", mapping, tmp_path / "parquet") == 0
    (only,) = behaviour_of(tmp_path / "parquet")
    assert (only.user_id, only.item_id, only.session_id, only.price_cents) == ("17", "5", "x", 255)
    assert f"{only.occurred_at:%H:%M:%S.%f}" == "08:00:00.500000"


def test_whole_numbers_that_became_floats_are_whole_again(mapping: Path, tmp_path: Path) -> None:
    rows = {
        "Zeit": [1714550400.0, 1714550401.0, 1714550402.0], "Aktion": ["gesehen"] * 3, "Artikel": [4.4e13, 7.5, None],
        "Kunde": [1442544701000.0, 5.0, 6.0], "Preis": ["1", None, "2"], "Menge": [1.0, None, 2.0],
    } | dict.fromkeys(("Bestellung", "Titel", "Kategorie"), [None] * 3)  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "log.parquet", index=False)
    assert ingest(tmp_path / "log.parquet", mapping, tmp_path / "shop") == 0
    assert [(one.user_id, one.item_id, one.occurred_at_ms) for one in behaviour_of(tmp_path / "shop")] == [
        ("1442544701000", "44000000000000", 1714550400000), ("5", "7.5", 1714550401000),
    ]  # fmt: skip


def test_items_have_a_table_of_their_own(mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = write(
        tmp_path / "items.csv",
        "id,name,pfad,preis,bestand,versteckt,seit,farbe\n"
        'A-1,Kanne,Haus/Küche,"19,90",3,nein,2024-01-02,rot\n'
        "A-9,Nie gesehen,,,0,true,,\n"
        "A-1,Zweite,,,,false,,\n"
        "B/2,Strich,,,,,,\n"
        'C-1,Teuer,,"-3,00",,,,\n'.replace("nein", "no"),
    )
    out = tmp_path / "shop"
    assert ingest(write(tmp_path / "log.csv", HEADER + GOOD), mapping, out, "--items", str(items)) == 0
    assert "rows of items: 5 = 2 items + 3 rejected" in capsys.readouterr().out
    found: dict[str, Any] = {
        str(event.item_id): (event.occurred_at, event.changes)
        for event in events_of(out)
        if event.event_type is EventType.ITEM_UPDATED
    }
    assert found["A-1"][1] == {
        "title": "Kanne", "categories": ["Haus", "Küche"], "price_cents": 1990, "stock": 3, "hidden": False,
        "arrived_at": "2024-01-01T23:00:00+00:00", "attributes": {"farbe": "rot"},
    }  # fmt: skip
    assert found["A-9"][1] == {"title": "Nie gesehen", "stock": 0, "hidden": True}
    assert found["A-9"][0] == behaviour_of(out)[0].occurred_at - (from_ms(1) - from_ms(0))
    assert found["B-2"][1]["title"] == "B-2"
    assert "price_cents" not in found["B-2"][1], "the table of items has the prices"
    assert [(row["line"], row["reason"]) for row in rejects_of(out, "-items")] == [
        ("4", "a second row of this item's id"),
        ("5", "id holds a / or a control character, or is longer than 128 bytes"),
        ("6", "price negative"),
    ]


def test_prices_that_were_paid_follow_the_day(mapping: Path, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    days = [(1, "5,00"), (2, "6,00"), (2, "6,00"), (2, "5,00"), (3, "6,00"), (4, "5,00")]
    lines = [f"2024-10-0{day}T1{place}:00:00Z;gekauft;A-1;;;{price};;k1;\n" for place, (day, price) in enumerate(days)]
    assert ingest(write(tmp_path / "log.csv", HEADER + "".join(lines)), mapping, out) == 0
    prices = [
        (event.occurred_at.day, (event.changes or {})["price_cents"])
        for event in events_of(out)
        if event.event_type is EventType.ITEM_UPDATED
    ]
    assert prices == [(1, 500), (2, 600), (4, 500)]


def test_a_mapping_may_be_yaml(mapping: Path, tmp_path: Path) -> None:
    text = (
        "events:\n  separator: ';'\n  decimal: ','\n  time_format: ['%d.%m.%Y %H:%M:%S', iso, epoch_s]\n"
        "  columns: {time: Zeit, user: Kunde, item: Artikel, event: Aktion}\n"
        "  names: {gesehen: view, Korb: cart, gekauft: purchase}\n"
    )
    path = write(tmp_path / "laden.yaml", text)
    assert ingest(write(tmp_path / "log.csv", HEADER + GOOD), path, tmp_path / "shop") == 0
    assert len(behaviour_of(tmp_path / "shop")) == 4
