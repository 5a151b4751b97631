"""Rejected rows of ingestions hold what the shop's file held; those that name an erased user go with her."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import Final

from batch.published_history import REJECTS_FOLDER
from shared.ingest.erased_users import ErasedUsers, ErasureEntry, KeyOf
from shared.ports import BlobStore

_BETWEEN: Final = re.compile(r"""[\s,;|"'{}\[\]:]+""")
"""What stands around an id in a row that could not be taken apart, or in a line of JSON."""
_FRACTION: Final = re.compile(r"(\d+)\.0+")
_LOOKED: Final = ".looked"


def clear_rejects(blobs: BlobStore, entries: Sequence[ErasureEntry], key_of: KeyOf) -> int:
    """Drop the rows in which any cell, or any word of one, is an erased user's id; returns how many went.

    A file is looked at once for each number of erasures; beside it stands what was looked at. Raises
    InfrastructureFault.
    """
    gone = 0
    users = ErasedUsers.of(entries, key_of)
    for name in list(blobs.names(REJECTS_FOLDER)) if users else ():
        if not name.endswith(".csv"):
            continue
        data = blobs.read(name)
        if _looked(blobs, name) == _mark(data, len(entries)):
            continue
        kept, dropped = _without(data, users)
        if dropped:
            blobs.write(name, kept)
        blobs.write(f"{name}{_LOOKED}", _mark(kept, len(entries)))
        gone += dropped
    return gone


def _without(data: bytes, users: ErasedUsers) -> tuple[bytes, int]:
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    names = [set(_names(row)) for row in rows]
    erased = users.among({name for found in names for name in found}).keys()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kept = [row for place, (row, found) in enumerate(zip(rows, names, strict=True)) if not place or not found & erased]
    writer.writerows(kept)
    dropped = len(rows) - len(kept)
    return (text.getvalue().encode() if dropped else data), dropped


def _names(row: Sequence[str]) -> Iterator[str]:
    for cell in row:
        for word in {cell, cell.strip(), *_BETWEEN.split(cell)}:
            if word:
                yield word
                whole = _FRACTION.fullmatch(word)
                if whole is not None:
                    yield whole[1]


def _mark(data: bytes, count: int) -> bytes:
    return f"{count} {hashlib.sha256(data).hexdigest()}".encode()


def _looked(blobs: BlobStore, name: str) -> bytes:
    try:
        return blobs.read(f"{name}{_LOOKED}")
    except FileNotFoundError:
        return b""
