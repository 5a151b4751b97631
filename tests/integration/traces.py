"""Looks for words as bytes in everything a shop keeps: files, packed or not, and every key and value of a server."""

from __future__ import annotations

import gzip
import io
import json
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from redis import Redis

PARQUET, GZIP, ZIP, ZSTD, SQLITE = b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"SQLite format 3"


Word = re.Pattern[bytes]


def word_of(user_id: str, but_not_before: str = "") -> Word:
    """An id as it may stand in a file: plain, or with what JSON escapes of it; not where longer ids begin like it."""
    texts = user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1], quote(user_id, safe="")
    either = b"|".join(re.escape(text.encode()) for text in dict.fromkeys(texts))
    unlike = b"(?![" + re.escape(but_not_before.encode()) + b"])" if but_not_before else b""
    return re.compile(b"(?:" + either + b")" + unlike)


def files_with(root: Path, word: Word) -> list[str]:
    """The files below a folder, hidden ones too, in which the word stands, however packed."""
    return [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*"))
        if path.is_file() and any(word.search(layer) for layer in layers(path.read_bytes()))
    ]


def layers(data: bytes) -> Iterator[bytes]:
    """The bytes as they lie, and as every packing within them gives them."""
    yield data
    if data.startswith(GZIP):
        yield from layers(_unpacked_gzip(data))
    elif data.startswith(ZSTD):
        yield from layers(pa.input_stream(io.BytesIO(data), compression="zstd").read())
    elif data.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from layers(archive.read(name))
    elif data.startswith(PARQUET):
        yield from _parquet_values(data)
    elif data.startswith(SQLITE):
        connection = sqlite3.connect(":memory:")
        connection.deserialize(data)
        yield "\n".join(connection.iterdump()).encode()
        connection.close()


def _unpacked_gzip(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except EOFError:  # half written
        return zlib.decompressobj(wbits=31).decompress(data)


def _parquet_values(data: bytes) -> Iterator[bytes]:
    """Every text of a file, among them those of dictionaries that no row uses."""
    schema = pq.read_schema(pa.BufferReader(data))
    texts = [one.name for one in schema if pa.types.is_string(one.type) or pa.types.is_binary(one.type)]
    for table in (
        pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts).read(),
        pq.ParquetFile(pa.BufferReader(data)).read(),
    ):
        for column in table.columns:
            for chunk in column.chunks:
                values = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
                if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
                    found = values.cast(pa.binary()).drop_null().unique().to_pylist()
                    yield b"\n".join(found)  # apart from each other, as two beside each other may look like a third


def keys_with(client: Redis, word: Word) -> list[bytes]:
    """The keys in whose name or value the word stands; streams as they are read."""
    return sorted(
        key for key in client.scan_iter(count=1000) if any(word.search(text) for text in (key, _value(client, key)))
    )


def _value(client: Redis, key: bytes) -> bytes:
    kind: Any = client.type(key)
    answer: Any
    if kind == b"string":
        answer = client.get(key)
        return bytes(answer or b"")
    if kind == b"hash":
        answer = client.hgetall(key)
        return b"\n".join(part for pair in answer.items() for part in pair)
    if kind == b"stream":
        answer = client.xrange(key)
        return b"\n".join(part for _, fields in answer for pair in fields.items() for part in pair)
    answer = client.dump(key)
    return bytes(answer or b"")
