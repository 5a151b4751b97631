"""UCI Online Retail as its publisher ships it (csv or xlsx) or as Parquet: order lines, read and cleaned.

Source: D. Chen, Online Retail, UCI Machine Learning Repository, 2015, doi 10.24432/C5BW33 (CC BY 4.0).
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from openpyxl.utils.datetime import from_excel
from openpyxl.utils.exceptions import InvalidFileException

from batch.input_files import UnreadableInput
from batch.progress import progress
from shared.errors import InvalidIdentifier
from shared.events import check_id

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
PRODUCT_CODE = r"\d{5}[A-Z]{0,3}"
_DATE_FORMATS = ("%m/%d/%Y %H:%M", "%m/%d/%y %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M")
"""The publisher's csv writes months first; the others are what spreadsheets and Parquet make of the same column."""

MAX_QUANTITY = 10**6
MAX_PRICE = 10**9


@dataclass(frozen=True, slots=True)
class OrderLines:
    """Clean order lines in file order, and what was rejected with its reason.

    `clean` has invoice, code, line (the line's place in its invoice, from 0), title, quantity (int64), price_cents
    (int64), customer and local_at (the shop's wall clock, datetime64[ns]). `rejects` has the original columns as text
    and `reason`.
    """

    clean: pd.DataFrame
    rejects: pd.DataFrame

    def totals(self) -> dict[str, int]:
        """Rejected lines by reason, the most frequent first."""
        return {str(reason): int(count) for reason, count in self.rejects["reason"].value_counts().items()}

    def rejects_csv(self) -> bytes:
        """The rejects as UTF-8 CSV with a header."""
        text = io.StringIO()
        self.rejects.to_csv(text, index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
        return text.getvalue().encode()


def read_order_lines(path: Path) -> OrderLines:
    """Read and clean a .csv, .xlsx or .parquet of Online Retail.

    Raises UnreadableInput: no such file, another format, columns missing, or no rows.
    """
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": _read_csv,
        ".xlsx": _read_xlsx,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UnreadableInput(f"{path} has none of the endings {', '.join(readers)}; convert it or give another file")
    try:
        raw = reader(path)
    except FileNotFoundError as error:
        raise UnreadableInput(f"there is no file {path}; give --path the data set's file") from error
    except (OSError, zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, csv.Error) as error:
        # pandas' and Arrow's own errors are ValueErrors; openpyxl answers a zip that is no workbook with KeyError
        raise UnreadableInput(f"{path} cannot be read as {path.suffix}: {error}; download it again") from error
    if raw.empty:
        raise UnreadableInput(f"{path} holds no rows; give the whole data set")
    return clean_order_lines(raw)


def clean_order_lines(raw: pd.DataFrame) -> OrderLines:
    """Split the rows of `COLUMNS` (text, numbers or dates, as the file had them) into clean lines and rejects.

    A row that breaks several rules is counted under the first: cancellation, missing customer, non-product code,
    quantity, price, unreadable date, ids that are none.
    """
    invoice, code, customer = _ids(raw["InvoiceNo"]), _ids(raw["StockCode"]).str.upper(), _ids(raw["CustomerID"])
    quantity = pd.to_numeric(raw["Quantity"], errors="coerce")
    price = pd.to_numeric(raw["UnitPrice"], errors="coerce")
    local_at = _dates(raw["InvoiceDate"])
    checks = {
        "cancellation": invoice.str.upper().str.startswith("C"),
        "missing customer": customer == "",
        "non-product code": ~code.str.fullmatch(PRODUCT_CODE),
        "quantity not positive": ~quantity.between(1, MAX_QUANTITY) | (quantity % 1 != 0),
        "price not positive": ~price.between(0, MAX_PRICE, inclusive="right"),
        "date not readable": local_at.isna(),
        "invoice or customer is no id": ~_valid_ids(invoice, "InvoiceNo") | ~_valid_ids(customer, "CustomerID"),
    }
    reason = pd.Series("", index=raw.index, dtype=object)
    for text, broken in checks.items():
        reason = reason.mask(broken & (reason == ""), text)
    good = reason == ""
    clean = pd.DataFrame(
        {
            "invoice": invoice[good],
            "code": code[good],
            "line": invoice.groupby(invoice).cumcount()[good],
            "title": _text(raw["Description"])[good],
            "quantity": quantity[good].astype("int64"),
            "price_cents": (price[good] * 100).round().astype("int64"),
            "customer": customer[good],
            "local_at": local_at[good],
        }
    ).reset_index(drop=True)
    rejects = pd.DataFrame({name: _text(raw[name])[~good] for name in COLUMNS})
    return OrderLines(clean, rejects.assign(reason=reason[~good]).reset_index(drop=True))


def _read_csv(path: Path) -> pd.DataFrame:
    """Every column as text. The publisher's file is UTF-8, its well-known copies are Latin-1 (pound signs)."""
    for encoding in ("utf-8-sig", "latin-1"):
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding=encoding)
        except UnicodeDecodeError:
            continue
        return _with_columns(frame, path)
    raise AssertionError("Latin-1 decodes any bytes")


def _read_xlsx(path: Path) -> pd.DataFrame:
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        sheet = book.worksheets[0]
        rows = sheet.iter_rows(values_only=True)
        header = [str(name).strip() for name in next(rows, ())]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise _missing(missing, path)
        places = [header.index(name) for name in COLUMNS]
        columns: list[list[Any]] = [[] for _ in COLUMNS]
        size = sheet.max_row
        with progress(f"reading {path.name}", size - 1 if size else None, "rows") as advance:
            for row in rows:
                if all(value is None for value in row):
                    continue  # spreadsheets often end in formatted, empty rows
                for column, place in zip(columns, places, strict=True):
                    column.append(row[place] if place < len(row) else None)
                if not len(columns[0]) % 1000:
                    advance(1000)
    finally:
        book.close()
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in zip(COLUMNS, columns, strict=True)})


def _read_parquet(path: Path) -> pd.DataFrame:
    names = pq.read_schema(path).names
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise _missing(missing, path)
    table: pa.Table = pq.read_table(path, columns=list(COLUMNS))
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame


def _with_columns(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise _missing(missing, path)
    return frame[list(COLUMNS)]


def _missing(names: list[str], path: Path) -> UnreadableInput:
    return UnreadableInput(
        f"{path} lacks the columns {', '.join(names)}; Online Retail has {', '.join(COLUMNS)} in its first row"
    )


def _text(column: pd.Series[Any]) -> pd.Series[str]:
    """Values as text without surrounding blanks; what is missing is the empty text."""
    unique = {value: "" if pd.isna(value) else str(value).strip() for value in column.unique()}
    return column.map(unique).where(column.notna(), "").astype(object)


def _ids(column: pd.Series[Any]) -> pd.Series[str]:
    """As `_text`; a number that a spreadsheet made of an id (17850.0) loses its fraction."""
    return _text(column).str.replace(r"^(\d+)\.0+$", r"\1", regex=True)


def _valid_ids(column: pd.Series[str], name: str) -> pd.Series[bool]:
    def valid(value: str) -> bool:
        try:
            check_id(value, name)
        except InvalidIdentifier:
            return False
        return True

    return column.map({value: valid(value) for value in column.unique()}).astype(bool)


def _dates(column: pd.Series[Any]) -> pd.Series[pd.Timestamp]:
    """Wall-clock datetimes; dates, spreadsheet numbers and text of the known formats. NaT where it is none of them."""
    if pd.api.types.is_datetime64_any_dtype(column):
        wall: pd.Series[pd.Timestamp] = column.dt.tz_localize(None).astype("datetime64[ns]")
        return wall
    found = {value: _date(value) for value in column.unique()}
    return pd.to_datetime(column.map(found)).astype("datetime64[ns]")


def _date(value: object) -> datetime | None:
    """The date of one cell; None where it is none, or none that 64-bit nanoseconds can hold."""
    found: datetime | None = None
    if isinstance(value, datetime):
        found = value.replace(tzinfo=None)
    elif isinstance(value, str):
        found = _parsed(value.strip())
    elif isinstance(value, (int, float)) and 0 < value < 100_000:
        serial = from_excel(value)
        found = serial if isinstance(serial, datetime) else None
    return found if found is not None and 1900 <= found.year <= 2200 else None


def _parsed(text: str) -> datetime | None:
    for form in _DATE_FORMATS:
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007 - a wall clock; the zone is applied later
        except ValueError:
            continue
    return None
