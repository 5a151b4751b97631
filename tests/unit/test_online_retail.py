from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.input_files import UnreadableInput
from batch.online_retail import COLUMNS, read_order_lines
from batch.online_retail_events import (
    categories_of,
    content_fingerprint,
    history_tables,
    shifted_instants,
)
from batch.shop_time import weeks_until
from shared.events import EventType, decode_event, encode_event, from_ms, to_ms
from shared.ingest.lake_table import events_of_table

LONDON = ZoneInfo("Europe/London")
WHOLE = Path(__file__).parents[3] / "shared" / "data" / "uci_online_retail.parquet"

LINE = ("536365", "85123A", " WHITE HEART HOLDER ", 6, datetime(2010, 12, 1, 8, 26), 2.55, 17850, "United Kingdom")  # noqa: DTZ001 - the shop's wall clock


def line(**changed: Any) -> dict[str, Any]:
    return dict(zip(COLUMNS, LINE, strict=True)) | changed


ROWS = [
    line(),
    line(),
    line(StockCode="85123a", Quantity=2),
    line(InvoiceNo="C536366", Quantity=-6),
    line(CustomerID=None),
    line(StockCode="POST"),
    line(StockCode="DOT", CustomerID=None),
    line(Quantity=-1),
    line(Quantity=0),
    line(UnitPrice=0.0),
    line(InvoiceNo="536367", StockCode="15056BL", UnitPrice=5.95, CustomerID=12345),
]
TOTALS = {
    "cancellation": 1,
    "missing customer": 2,
    "non-product code": 1,
    "quantity not positive": 2,
    "price not positive": 1,
}


def as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["InvoiceDate"] = [f"{row['InvoiceDate']:%m/%d/%Y %H:%M}" for row in rows]
    frame.to_csv(path.with_suffix(".csv"), index=False, encoding="latin-1")
    return path.with_suffix(".csv")


def as_xlsx(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As a spreadsheet does it: ids that look like numbers are numbers, customers have a fraction."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(list(COLUMNS))
    for row in rows:
        sheet.append([int(value) if isinstance(value, str) and value.isdigit() else value for value in row.values()])
    sheet.append([None] * len(COLUMNS))
    book.save(path.with_suffix(".xlsx"))
    return path.with_suffix(".xlsx")


def as_xlsx_of_text(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = [row | {"InvoiceDate": f"{row['InvoiceDate']:%m/%d/%Y %H:%M}"} for row in rows]
    return as_xlsx(path, [{key: None if value is None else str(value) for key, value in row.items()} for row in text])


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


WRITERS = [as_csv, as_xlsx, as_xlsx_of_text, as_parquet]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: str(write.__name__))
def test_each_form_gives_the_same_lines_rejects_and_fingerprint(
    write: Callable[[Path, list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    lines = read_order_lines(write(tmp_path / "retail", ROWS))
    assert lines.totals() == TOTALS
    clean = lines.clean.to_dict("records")
    assert [(row["code"], row["line"], row["quantity"], row["price_cents"], row["customer"]) for row in clean] == [
        ("85123A", 0, 6, 255, "17850"),
        ("85123A", 1, 6, 255, "17850"),
        ("85123A", 2, 2, 255, "17850"),
        ("15056BL", 0, 6, 595, "12345"),
    ]
    assert {row["title"] for row in clean} == {"WHITE HEART HOLDER"}
    assert {str(row["local_at"]) for row in clean} == {"2010-12-01 08:26:00"}
    expected = read_order_lines(as_parquet(tmp_path / "expected", ROWS)).clean
    assert content_fingerprint(lines.clean, LONDON, 0, 4) == content_fingerprint(expected, LONDON, 0, 4)


def test_rejects_keep_every_original_column_and_the_reason(tmp_path: Path) -> None:
    lines = read_order_lines(as_csv(tmp_path / "retail", [*ROWS, line(Description="2,5 kg £")]))
    text = lines.rejects_csv().decode().splitlines()
    assert text[0] == "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country,reason"
    assert text[1].startswith("C536366,85123A,WHITE HEART HOLDER,-6,12/01/2010 08:26,2.55,17850")
    assert text[1].endswith(",cancellation")
    assert len(text) == 8
    assert lines.clean["title"].iloc[-1] == "2,5 kg £"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"InvoiceDate": "31.12.2010"}, "date not readable"),
        ({"InvoiceDate": "13/13/2010 08:26"}, "date not readable"),
        ({"InvoiceDate": None}, "date not readable"),
        ({"Quantity": "six"}, "quantity not positive"),
        ({"Quantity": 1.5}, "quantity not positive"),
        ({"Quantity": 10**7}, "quantity not positive"),
        ({"UnitPrice": "free"}, "price not positive"),
        ({"UnitPrice": -11062.06}, "price not positive"),
        ({"CustomerID": "a/b"}, "invoice or customer is no id"),
        ({"InvoiceNo": "A" * 200}, "invoice or customer is no id"),
        ({"CustomerID": "  "}, "missing customer"),
        ({"StockCode": "8512"}, "non-product code"),
        ({"StockCode": "85123ABCD"}, "non-product code"),
        ({"StockCode": None}, "non-product code"),
        ({"InvoiceNo": "c1"}, "cancellation"),
    ],
)
def test_a_bad_cell_is_rejected_with_its_reason(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    assert read_order_lines(as_xlsx(tmp_path / "retail", [line(), line(**changed)])).totals() == {reason: 1}


def test_spreadsheet_numbers_are_dates(tmp_path: Path) -> None:
    lines = read_order_lines(as_xlsx(tmp_path / "retail", [line(InvoiceDate=40513.35138888889)]))
    assert str(lines.clean["local_at"][0].round("s")) == "2010-12-01 08:26:00"


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("absent.csv", None, "no file"),
        ("retail.txt", b"", "endings"),
        ("retail.csv", b"", "cannot be read"),
        ("retail.csv", b"InvoiceNo,StockCode\n1,2\n", "lacks the columns Description"),
        ("retail.csv", ",".join(COLUMNS).encode() + b"\n", "no rows"),
        ("retail.csv", ",".join(COLUMNS).encode() + b"\n1,2,3,4,5,6,7,8\n1,2,3,4,5,6,7,8,9\n", "cannot be read"),
        ("retail.xlsx", b"no zip", "cannot be read"),
        ("retail.parquet", b"no parquet", "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words(name: str, body: bytes | None, message: str, tmp_path: Path) -> None:
    if body is not None:
        (tmp_path / name).write_bytes(body)
    with pytest.raises(UnreadableInput, match=message):
        read_order_lines(tmp_path / name)


def test_other_tables_and_folders_are_refused_in_words(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.save(tmp_path / "empty.xlsx")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "folder.csv").mkdir()
    for name, message in (("empty.xlsx", "lacks"), ("other.parquet", "lacks"), ("folder.csv", "cannot be read")):
        with pytest.raises(UnreadableInput, match=message):
            read_order_lines(tmp_path / name)


def order_lines(rows: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    """(code, wall clock, title, price) of one line an order."""
    return pd.DataFrame(
        {
            "invoice": [str(number) for number in range(len(rows))],
            "code": [code for code, *_ in rows],
            "line": 0,
            "title": [title for _, _, title, _ in rows],
            "quantity": 1,
            "price_cents": [round(price * 100) for *_, price in rows],
            "customer": "ann",
            "local_at": pd.to_datetime([at for _, at, *_ in rows]),
        }
    )


def test_events_announce_items_before_they_are_bought_and_follow_the_daily_price() -> None:
    lines = order_lines(
        [
            ("11111", "2011-06-01 10:00", "FIRST NAME", 1.00),
            ("11111", "2011-06-01 11:00", "", 2.00),
            ("11111", "2011-06-01 12:00", "", 2.00),  # another mode on the first day: no update
            ("11111", "2011-06-02 10:00", "OTHER NAME", 3.00),
            ("11111", "2011-06-02 11:00", "", 3.00),
            ("11111", "2011-06-02 12:00", "", 1.00),  # the mode is 3.00
            ("11111", "2011-06-03 10:00", "", 3.00),
            ("11111", "2011-06-03 10:00", "", 9.00),  # a tie: the price stays
            ("22222", "2011-06-03 10:00", "", 0.42),
        ]
    )
    tables = list(history_tables(lines, LONDON, 0))
    assert [table.num_rows for table in tables] == [4, 4, 4]
    events = [event for table in tables for event in events_of_table(table) if event is not None]
    for event in events:
        assert decode_event(encode_event(event)) == event
    assert len({event.event_id for event in events}) == len(events)
    at = [event.occurred_at_ms for event in events]
    assert at == sorted(at)
    first = events[0]
    assert first.event_type is EventType.ITEM_UPDATED
    assert first.occurred_at == datetime(2011, 6, 1, 9, 0, tzinfo=UTC) - timedelta(milliseconds=1)  # summer time
    assert first.changes is not None
    assert first.changes["title"] == "FIRST NAME"
    assert first.changes["price_cents"] == 100
    assert first.item_changes().arrived_at == first.occurred_at
    updates = [event for event in events if event.event_type is EventType.ITEM_UPDATED]
    assert [(event.item_id, (event.changes or {}).get("price_cents")) for event in updates] == [
        ("11111", 100), ("11111", 300), ("22222", 42),
    ]  # fmt: skip
    assert updates[1].occurred_at == datetime(2011, 6, 2, 11, 0, 0, 1000, tzinfo=UTC)
    assert (updates[2].changes or {})["title"] == "22222"


def test_a_shift_keeps_local_hour_and_weekday_over_changes_of_the_clock() -> None:
    wall = pd.Series(pd.to_datetime(["2011-01-15 08:30", "2011-07-15 08:30", "2011-10-30 01:30", "2011-03-20 01:30"]))
    for weeks in (0, 1, 30, 781, -52):
        moved = shifted_instants(wall, LONDON, weeks)
        for before, at in zip(wall[:2], moved[:2], strict=True):
            after = from_ms(at).astimezone(LONDON)
            assert (after.hour, after.minute, after.weekday()) == (before.hour, before.minute, before.weekday())
            assert (after.replace(tzinfo=None) - before.to_pydatetime()) == timedelta(weeks=weeks)
    assert from_ms(shifted_instants(wall, LONDON, 0)[2]) == datetime(2011, 10, 30, 0, 30, tzinfo=UTC)  # the first 01:30
    assert from_ms(shifted_instants(wall, LONDON, 1)[3]) == datetime(2011, 3, 27, 1, 30, tzinfo=UTC)  # leapt over


@pytest.mark.parametrize(
    ("now", "weeks"),
    [
        ("2011-12-09T12:50:00", 0),
        ("2011-12-16T12:49:59.999", 0),
        ("2011-12-16T12:50:00", 1),
        ("2012-07-06T11:49:59", 29),
        ("2012-07-06T11:50:00", 30),  # summer time: 12:50 in London
        ("2011-12-09T12:49:59", -1),
        ("2011-11-01T00:00:00", -6),
    ],
)
def test_auto_is_the_largest_shift_that_ends_by_now(now: str, weeks: int) -> None:
    last = datetime(2011, 12, 9, 12, 50)  # noqa: DTZ001 - the shop's wall clock
    instant = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert weeks_until(last, LONDON, instant) == weeks
    assert shifted_instants(pd.Series([pd.Timestamp(last)]), LONDON, weeks)[0] <= to_ms(instant)


def test_content_shift_zone_and_partitions_make_the_fingerprint() -> None:
    lines = order_lines([("11111", "2011-06-01 10:00", "A", 1.0), ("22222", "2011-06-01 10:00", "B", 1.0)])
    other = order_lines([("11111", "2011-06-01 10:00", "A", 1.0), ("22222", "2011-06-01 10:00", "B", 1.1)])
    prints = [
        content_fingerprint(lines, LONDON, 0, 4),
        content_fingerprint(other, LONDON, 0, 4),
        content_fingerprint(lines, LONDON, 1, 4),
        content_fingerprint(lines, ZoneInfo("UTC"), 0, 4),
        content_fingerprint(lines, LONDON, 0, 8),
        content_fingerprint(lines.iloc[::-1], LONDON, 0, 4),
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(found) == 12 for found in prints)


def test_categories_are_the_nouns_that_titles_end_with() -> None:
    titles = [f"RED {thing} {number}" for number in range(12) for thing in ("LANTERN", "TIN BOXES")]
    titles += ["RED LANTERN LARGE", "SMALL BOX, RED", "RED", "", "GLASS"]
    found = categories_of(titles)
    assert found["RED LANTERN LARGE"] == "LANTERN"
    assert found["SMALL BOX, RED"] == found["RED TIN BOXES 3"] == "BOX"
    assert {found["RED"], found[""], found["GLASS"]} == {"OTHER"}


@pytest.mark.skipif(not WHOLE.is_file(), reason="the data set is not beside this checkout (../shared/data)")
def test_the_whole_data_set_has_the_documented_totals() -> None:
    clean = read_order_lines(WHOLE).clean
    assert [len(clean), *(clean[name].nunique() for name in ("customer", "code", "invoice"))] == [
        396_337, 4_334, 3_659, 18_402,
    ]  # fmt: skip
