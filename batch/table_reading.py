"""Rows of a CSV, JSON lines or Parquet file in batches of text columns, with the place of each row in its file."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.input_files import InputFile, UnreadableInput
from batch.table_mapping import Reading

BATCH_ROWS: Final = 200_000
MOST_LINES_OF_A_ROW: Final = 100
_SEPARATORS: Final = (",", ";", "\t", "|")
_MORE: Final = frozenset({".csv", ".tsv", ".txt"})
_LINES: Final = frozenset({".jsonl", ".ndjson", ".json"})
_DAMAGED: Final = (EOFError, OSError, zlib.error, pa.ArrowInvalid)
"""What gzip and Parquet say of bytes that are not whole."""
_DECODER: Final = msgspec.json.Decoder(dict[str, Any], float_hook=str)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is none: `fields` are as far as the file's columns go."""

    line: int
    reason: str
    fields: Sequence[str]


@dataclass(frozen=True, slots=True)
class Batch:
    """Up to `BATCH_ROWS` rows; `lines` (int64[n]) counts lines from 1, in Parquet rows from 1.

    `column` gives one column as trimmed text, null where it is missing; `row` the original cells of one row.
    """

    size: int
    lines: NDArray[np.int64]
    column: Callable[[str], pa.Array]
    row: Callable[[int], Sequence[str]]
    bad: Sequence[BadRow]


@dataclass(frozen=True, slots=True)
class RowSource:
    """A file that is open: what its rejects are called (`names`), and its rows."""

    names: tuple[str, ...]
    batches: Iterator[Batch]


def open_rows(file: InputFile, reading: Reading, columns: Mapping[str, str]) -> RowSource:
    """Open a file whose ending says what it is; `columns` is column -> the place in the mapping that names it.

    Raises UnreadableInput: no such file, another format, no rows, a mapped column that is not there, text that is not
    in the encoding named, a quote that is never closed.
    """
    ending = file.suffixes[-1] if file.suffixes else ""
    try:
        if ending in _MORE:
            found = _csv_rows(file, reading, columns)
        elif ending in _LINES:
            found = RowSource(("json",), _json_batches(file, reading))
        elif ending == ".parquet":
            found = _parquet_rows(file, reading, columns)
        else:
            raise _unknown_ending(file)
    except _DAMAGED as error:
        raise _damaged(file, error) from error
    return RowSource(found.names, _undamaged(file, found.batches))


def _unknown_ending(file: InputFile) -> UnreadableInput:
    return UnreadableInput(
        f"{file.address} has none of the endings {', '.join(sorted({*_MORE, *_LINES, '.parquet'}))} (.gz may follow)"
    )


def _undamaged(file: InputFile, batches: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from batches
    except _DAMAGED as error:
        raise _damaged(file, error) from error


def _damaged(file: InputFile, error: Exception) -> UnreadableInput:
    return UnreadableInput(f"{file.address} is damaged or cut off ({error}); fetch it again")


def first_line(file: InputFile, reading: Reading) -> list[str]:
    """The fields of a CSV's first line. Raises UnreadableInput."""
    with _text(file, reading) as lines:
        first = next(lines, "")
    separator = reading.separator or separator_of(first)
    return [name.strip() for name in next(csv.reader([first], delimiter=separator, quotechar=reading.quote), [])]


def separator_of(line: str) -> str:
    """The separator that a header has most of."""
    return max(_SEPARATORS, key=line.count)


def _text(file: InputFile, reading: Reading) -> io.TextIOWrapper:
    encoding = "utf-8-sig" if reading.encoding.lower().replace("-", "").replace("_", "") == "utf8" else reading.encoding
    return io.TextIOWrapper(file.open(), encoding=encoding, newline="")


def _csv_rows(file: InputFile, reading: Reading, columns: Mapping[str, str]) -> RowSource:
    names = list(reading.header) or first_line(file, reading)
    if not any(names):
        raise UnreadableInput(f"{file.address} is empty; give a file with a first line of column names")
    for name, place in columns.items():
        if names.count(name) != 1:
            said = "no column" if name not in names else "more than one column"
            raise UnreadableInput(
                f"{file.address} line 1 has {said} {name!r}, which {place} names; it has {', '.join(names)}"
            )
    return RowSource(tuple(names), _csv_batches(file, reading, names))


def _csv_batches(file: InputFile, reading: Reading, names: Sequence[str]) -> Iterator[Batch]:
    place = {name: index for index, name in enumerate(names)}
    nulls = pa.array(reading.null_values, pa.string())
    rows = _csv_records(file, reading, len(names))
    while some := list(itertools.islice(rows, BATCH_ROWS)):
        good = [(line, row) for line, row, reason in some if not reason]
        bad = [BadRow(line, reason, row) for line, row, reason in some if reason]
        cells = [row for _, row in good]

        def column(name: str, cells: list[list[str]] = cells) -> pa.Array:
            index = place[name]
            return _nulled(_texts([row[index] for row in cells]), nulls)

        lines = np.array([line for line, _ in good], dtype=np.int64)
        yield Batch(len(good), lines, column, cells.__getitem__, bad)


def _csv_records(file: InputFile, reading: Reading, width: int) -> Iterator[tuple[int, list[str], str]]:
    """(line, fields, what is wrong with them or "") of each record; empty lines are none."""
    with _text(file, reading) as lines:
        first = lines.readline()
        separator = reading.separator or separator_of(first)
        lines.seek(0)
        reader = csv.reader(lines, delimiter=separator, quotechar=reading.quote, strict=True)
        if not reading.header:
            next(reader, None)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except UnicodeDecodeError as error:
                raise _undecodable(file, reading) from error
            except csv.Error as error:
                if reader.line_num - line >= MOST_LINES_OF_A_ROW:
                    raise UnreadableInput(
                        f"{file.address} line {line}: a quote is opened that is not closed within "
                        f"{MOST_LINES_OF_A_ROW} lines; mend the line, or set another events.quote"
                    ) from error
                yield line, [], f"not readable as CSV: {error}"
                continue
            if len(row) == width:
                yield line, row, ""
            elif row:
                yield line, row, f"{len(row)} fields where the header has {width}"


def _undecodable(file: InputFile, reading: Reading) -> UnreadableInput:
    with file.open() as raw:
        for number, line in enumerate(raw, 1):
            try:
                line.decode(reading.encoding)
            except UnicodeDecodeError as error:
                return UnreadableInput(
                    f"{file.address} line {number}, byte {error.start + 1} (0x{line[error.start]:02x}) is not "
                    f'{reading.encoding}; set encoding = "latin-1" or what the file is in'
                )
    return UnreadableInput(f'{file.address} is not {reading.encoding}; set encoding = "utf-16" or what the file is in')


def _json_batches(file: InputFile, reading: Reading) -> Iterator[Batch]:
    nulls = pa.array(reading.null_values, pa.string())
    with file.open() as raw:
        numbered = ((line, text.strip()) for line, text in enumerate(raw, 1))
        records = ((line, text.removeprefix(b"\xef\xbb\xbf")) for line, text in numbered if text)
        while some := list(itertools.islice(records, BATCH_ROWS)):
            if some[0] == (1, b"[") or some[0][1].startswith((b"[{", b"[ {")):
                raise UnreadableInput(f"{file.address} is one JSON array; write one JSON object a line (jq -c '.[]')")
            values, lines, texts, bad = [], [], [], []
            for line, text in some:
                try:
                    values.append(_DECODER.decode(text))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    bad.append(BadRow(line, f"not a JSON object: {error}", [text.decode(errors="replace")]))
                    continue
                lines.append(line)
                texts.append(text)

            def column(name: str, values: list[dict[str, Any]] = values) -> pa.Array:
                path = name.split(".")
                return _nulled(_texts([_reached(value, name, path) for value in values]), nulls)

            def row(index: int, texts: list[bytes] = texts) -> Sequence[str]:
                return [texts[index].decode(errors="replace")]

            yield Batch(len(values), np.array(lines, dtype=np.int64), column, row, bad)


def _reached(value: dict[str, Any], name: str, path: list[str]) -> str | None:
    found: Any = value.get(name)
    if found is None and len(path) > 1:
        found = value
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
    if found is None or isinstance(found, str):
        return found
    return msgspec.json.encode(found).decode()


def _parquet_rows(file: InputFile, reading: Reading, columns: Mapping[str, str]) -> RowSource:
    raw = _seekable(file.open())
    try:
        source = pq.ParquetFile(raw)
        names = tuple(source.schema_arrow.names)
        _check_parquet(file, source.schema_arrow, columns)
    except pa.ArrowInvalid as error:
        raw.close()
        raise UnreadableInput(f"{file.address} cannot be read as Parquet: {error}") from error
    except UnreadableInput:
        raw.close()
        raise
    return RowSource(names, _parquet_batches(raw, source, reading, names))


def _check_parquet(file: InputFile, schema: pa.Schema, columns: Mapping[str, str]) -> None:
    for name, place in columns.items():
        if schema.names.count(name) != 1:
            raise UnreadableInput(
                f"{file.address} has no one column {name!r}, which {place} names; it has {', '.join(schema.names)}"
            )
        if pa.types.is_nested(schema.field(name).type):
            raise UnreadableInput(f"{file.address}: column {name!r} ({place}) is nested; write it flat")


def _seekable(raw: BinaryIO) -> BinaryIO:
    opened: object = raw
    if not isinstance(opened, gzip.GzipFile):
        return raw
    with opened:
        return io.BytesIO(opened.read())


def _parquet_batches(raw: BinaryIO, source: pq.ParquetFile, reading: Reading, names: Sequence[str]) -> Iterator[Batch]:
    with raw, source:
        yield from _arrow_batches(source, reading, names)


def _arrow_batches(source: pq.ParquetFile, reading: Reading, names: Sequence[str]) -> Iterator[Batch]:
    nulls = pa.array(reading.null_values, pa.string())
    done = 0
    for rows in source.iter_batches(batch_size=BATCH_ROWS):

        def column(name: str, rows: pa.RecordBatch = rows) -> pa.Array:
            return _nulled(pc.utf8_trim_whitespace(_as_text(rows.column(name))), nulls)

        def row(index: int, rows: pa.RecordBatch = rows) -> Sequence[str]:
            values = (rows.column(name)[index].as_py() for name in names)
            return ["" if value is None else str(value) for value in values]

        lines = np.arange(done + 1, done + 1 + rows.num_rows, dtype=np.int64)
        done += rows.num_rows
        yield Batch(rows.num_rows, lines, column, row, ())


def _as_text(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        texts = [None if value is None else value.decode(errors="replace") for value in column.to_pylist()]
        return pa.array(texts, pa.string())
    if pa.types.is_floating(column.type):
        return _float_texts(pc.cast(column, pa.float64()))
    return pc.cast(column, pa.string())


def _float_texts(column: pa.Array) -> pa.Array:
    """Whole numbers, such as ids and stamps that were nullable once, without fraction or exponent."""
    values = column.to_numpy(zero_copy_only=False)
    whole = np.isfinite(values) & (np.floor(values) == values) & (np.abs(values) < 2**53)
    numbers = pa.array(np.where(whole, values, 0).astype(np.int64))
    return pc.if_else(pa.array(whole), pc.cast(numbers, pa.string()), pc.cast(column, pa.string()))


def _texts(values: list[str | None] | list[str]) -> pa.Array:
    return pc.utf8_trim_whitespace(pa.array(values, pa.string()))


def _nulled(column: pa.Array, nulls: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_in(column, value_set=nulls), None, column)
