"""Whatever stands in a table: every row is an event, rejected or left out, and every event would pass the API."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.input_files import InputFile
from batch.table_history import made_history, read_table
from batch.table_mapping import mapping_of
from shared.events import EventType, event_from_fields
from shared.ingest.lake_table import events_of_table

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAPPING = mapping_of(
    {
        "shop": {"time_zone": "Australia/Lord_Howe", "currency": "EUR"},
        "events": {
            "time_format": ["iso", "%d.%m.%Y %H:%M", "epoch_s", "epoch_ms"],
            "category_separator": "/",
            "columns": {
                name: name
                for name in (
                    "time", "user", "item", "event", "session", "quantity", "price", "order", "title", "category",
                    "brand",
                )
            },
            "names": {"view": "view", "buy": "purchase", "x": "ignore"},
        },
    },
    "here",
)  # fmt: skip
NAMES = tuple(name for name in MAPPING.events.columns.__struct_fields__ if name != "id")
COLUMNS = [name for name in NAMES if getattr(MAPPING.events.columns, name)]

anything = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=6),
    st.sampled_from(["x" * 201, "y/" * 3000]),
)
times = st.one_of(
    st.datetimes(datetime(1960, 1, 1), datetime(2040, 1, 1)).map(str),  # noqa: DTZ001 - wall clocks are what is tried
    st.datetimes(datetime(2000, 1, 1), datetime(2025, 1, 1)).map(lambda at: f"{at:%d.%m.%Y %H:%M}"),  # noqa: DTZ001 - as above
    st.integers(-(10**20), 10**20).map(str),
    st.integers(10**9, 17 * 10**8).map(str),
    st.sampled_from(["2024-04-07T01:45:00", "2024-10-06T02:15:00", "2024-10-06T02:15:00+11:00", "0001-01-01", "1e9"]),
    anything,
)
ids = st.one_of(st.sampled_from(["a", "b", "17.0", "a/b", "", "NULL", "é" * 65, "\x01"]), anything)
numbers = st.one_of(
    st.integers(-5, 10**12).map(str), st.floats(width=32).map(str), st.sampled_from(["", "1,5"]), anything
)
cells = {
    "time": times, "user": ids, "item": ids, "event": st.sampled_from(["view", "buy", "x", "y", ""]), "session": ids,
    "quantity": numbers, "price": numbers,
}  # fmt: skip
rows = st.lists(st.tuples(*(cells.get(name, anything) for name in COLUMNS)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, weeks=st.sampled_from(["0", "auto", "-3"]))
def test_no_row_is_lost_and_no_event_is_wrong(rows: list[tuple[str, ...]], weeks: str, tmp_path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    path = tmp_path / "log.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    read = read_table(InputFile(str(path)), MAPPING, None, NOW)
    assert read.rows == len(rows)
    assert len(read.events) + read.rejects.total + read.rejects.left_out == len(rows)
    assert len(list(csv.DictReader(io.StringIO(read.rejects.csv().decode())))) == read.rejects.total
    if not len(read.events):
        return
    history = made_history(read, weeks, 3, NOW)
    assert made_history(read, weeks, 3, NOW).fingerprint == history.fingerprint
    table = pa.concat_tables(history.tables())
    assert table.num_rows >= len(read.events) + 1
    at, known, behaviour = [], set(), 0
    for event in events_of_table(table):
        assert event is not None
        event_from_fields(
            {name: value for name in event.__struct_fields__ if (value := getattr(event, name)) is not None}
        )
        assert event.occurred_at <= NOW or weeks == "-3"
        at.append(event.occurred_at)
        if event.event_type is EventType.ITEM_UPDATED:
            known.add(event.item_id)
        else:
            behaviour += 1
            assert event.item_id in known
    assert at == sorted(at)
    assert behaviour == len(read.events)
    assert len(set(table.column("event_id").to_pylist())) == table.num_rows
