"""Exposure files: what each API worker showed, one gzip NDJSON file a worker and minute.

Names begin with the day and the minute, so that a minute's files are found without listing the others.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from shared.errors import CorruptRecord
from shared.events import from_ms
from shared.ports import BlobStore

EXPOSURES_FOLDER = "lake/exposures/"
_SUFFIX = ".ndjson.gz"
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME = re.compile(rf"{EXPOSURES_FOLDER}\d{{8}}/(?P<minute>\d{{8}}T\d{{4}}Z)\.(?P<worker>.+){re.escape(_SUFFIX)}")
_EARLIER_NAME = re.compile(rf"{EXPOSURES_FOLDER}(?P<worker>[^/]+)/(?P<minute>\d{{8}}T\d{{4}}Z){re.escape(_SUFFIX)}")
"""What older code wrote."""


def write_exposures(blobs: BlobStore, worker: str, minute_at: int, lines: Sequence[bytes]) -> str:
    """Write a worker's exposures of the minute that begins at `minute_at` (epoch ms) and return the file's name.

    Each line is one JSON object without a newline. A second file of the same worker and minute replaces the first,
    so a worker writes a minute once, or names itself anew when it starts.

    Raises ValueError for a worker's name that is no file name, or a line with a newline in it.
    """
    if not _WORKER.fullmatch(worker):
        raise ValueError(f"{worker!r} is no worker name: use {_WORKER.pattern}")
    if any(b"\n" in line for line in lines):
        raise ValueError("an exposure is one line of JSON; this one holds a newline")
    name = f"{_beginning_of(minute_at)}{worker}{_SUFFIX}"
    blobs.write(name, gzip.compress(b"".join(line + b"\n" for line in lines), compresslevel=6, mtime=0))
    return name


def exposure_files(blobs: BlobStore) -> list[tuple[str, str, str]]:
    """(minute, worker, name) of every exposure file, ascending; minutes are text that sorts as time does."""
    found = (_NAME.fullmatch(name) or _EARLIER_NAME.fullmatch(name) for name in blobs.names(EXPOSURES_FOLDER))
    return sorted((one["minute"], one["worker"], one.string) for one in found if one is not None)


def exposure_files_of_minute(blobs: BlobStore, minute_at: int) -> list[str]:
    """The names of all workers' files of the minute that begins at `minute_at` (epoch ms)."""
    return [name for name in blobs.names(_beginning_of(minute_at)) if name.endswith(_SUFFIX)]


def exposure_lines_of(blobs: BlobStore, name: str) -> list[bytes]:
    """A file's lines as they were written; none when there is no such file. Raises CorruptRecord."""
    try:
        return [line for line in gzip.decompress(blobs.read(name)).split(b"\n") if line]
    except FileNotFoundError:
        return []
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(name, error) from error


def read_exposure_file[T](blobs: BlobStore, name: str, form: type[T]) -> list[T]:
    """The exposures of one file, in the order written. Raises CorruptRecord when it is damaged or of another form."""
    decoder = msgspec.json.Decoder(form)
    try:
        return [decoder.decode(line) for line in gzip.decompress(blobs.read(name)).split(b"\n") if line]
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
        raise _damaged(name, error) from error


def read_exposures(blobs: BlobStore) -> Iterator[dict[str, Any]]:
    """All exposures, minute by minute, a worker's in the order written. Raises CorruptRecord when a file is damaged."""
    for _, _, name in exposure_files(blobs):
        yield from read_exposure_file(blobs, name, dict[str, Any])


def _damaged(name: str, error: Exception) -> CorruptRecord:
    return CorruptRecord(f"{name} is damaged ({error}); delete it: its exposures are lost")


def _beginning_of(minute_at: int) -> str:
    minute = from_ms(minute_at)
    return f"{EXPOSURES_FOLDER}{minute:%Y%m%d}/{minute:%Y%m%dT%H%MZ}."
