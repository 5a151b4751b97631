"""Reading data sets as they are published: Parquet or CSV, columns named by flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from shared.errors import ConfigurationError

CSV_ENDINGS: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt")
ID_FIELDS: Final = ("user", "item", "session", "target", "brand")
"""In text files these are strings whatever they look like: 007 is not 7."""
_READ_AT_ONCE: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """What the columns are called; each field is a flag `--<field>-column` of the command."""

    user: str = "user"
    item: str = "item"
    position: str = "pos"
    session: str = "session"
    basket: str = "basket_no"
    part: str = "part"
    prefix: str = "prefix"
    target: str = "target"
    attributes: str = "attributes"
    brand: str = ""
    """Of the attributes file; empty: it has none."""


def read_columns(path: Path, names: ColumnNames, wanted: Sequence[str]) -> pa.Table:
    """The wanted columns (fields of `ColumnNames`) of a file, under those field names, without empty values.

    Raises ConfigurationError, with what to do, for a file that is missing or cannot be read, a column it does not
    have, an empty value or a file without rows.
    """
    known = {one.name for one in fields(names)}
    table = _read(path, {getattr(names, field) for field in ID_FIELDS})
    chosen: dict[str, pa.ChunkedArray] = {}
    for field in wanted:
        assert field in known, field
        name = getattr(names, field)
        if name not in table.column_names:
            held = ", ".join(table.column_names)
            raise ConfigurationError(f"{path} has no column {name!r} (it has {held}); name it with --{field}-column")
        column = table[name]
        if column.null_count:
            raise ConfigurationError(f"column {name!r} of {path} has {column.null_count:,} empty values; take them out")
        chosen[field] = column
    if not len(table):
        raise ConfigurationError(f"{path} has no rows")
    return pa.table(chosen)


def ids(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Ids of whatever type as strings; raises ConfigurationError for a type that names nothing."""
    try:
        cast = column.cast(pa.large_string())
    except pa.ArrowException as error:
        raise ConfigurationError(f"a column of {column.type} cannot hold ids: {error}") from error
    return cast.combine_chunks() if isinstance(cast, pa.ChunkedArray) else cast


def numbers(table: pa.Table, field: str, path: Path) -> pa.Array:
    """A column of whole numbers as int64; raises ConfigurationError for other values, naming the column."""
    try:
        return table[field].cast(pa.int64()).combine_chunks()
    except pa.ArrowException as error:
        raise ConfigurationError(f"column for {field} of {path} must hold whole numbers: {error}") from error


def lists(table: pa.Table, field: str, path: Path) -> tuple[pa.Array, pa.Array]:
    """A column of lists as (lengths int64[n], members one after the other).

    Lists in text files are JSON, or members with blanks between. Raises ConfigurationError for other columns.
    """
    column = table[field].combine_chunks()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pa.array([_members(text) for text in column.to_pylist()], type=pa.list_(pa.string()))
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise ConfigurationError(f"column for {field} of {path} must hold lists, it holds {column.type}")
    members = column.flatten()
    if members.null_count:
        raise ConfigurationError(f"lists of {field} in {path} hold {members.null_count:,} empty values")
    return pc.list_value_length(column).cast(pa.int64()), members


def digest_of(paths: Sequence[Path]) -> str:
    """A fingerprint of the files' bytes, 32 hexadecimal digits."""
    said = blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_READ_AT_ONCE):
                said.update(block)
    return said.hexdigest()


def _read(path: Path, as_text: set[str]) -> pa.Table:
    try:
        if path.name.lower().endswith(CSV_ENDINGS):
            with path.open("rb") as file:
                head = file.read(2)
            stream = pa.input_stream(str(path), compression="gzip" if head == b"\x1f\x8b" else None)
            delimiter = "\t" if ".tsv" in path.name.lower() else ","
            return pa_csv.read_csv(
                stream,
                parse_options=pa_csv.ParseOptions(delimiter=delimiter),
                convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(as_text - {""}, pa.string())),
            )
        return pq.read_table(path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no file {path}") from error
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read as Parquet or CSV: {error}") from error


def _members(text: str) -> list[str]:
    if text.lstrip().startswith("["):
        try:
            return [str(one) for one in msgspec.json.decode(text.encode(), type=list[int | str])]
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"{text[:80]!r} is no list of ids: {error}") from error
    return text.replace(",", " ").split()
