"""What erasure does to exposures: the lines of an erased user go, also those that a worker wrote late."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

import msgspec
from msgspec import Struct

from shared.errors import CorruptRecord
from shared.events import from_ms
from shared.ingest.erased_users import ErasedUsers, ErasureEntry, KeyOf
from shared.ingest.exposures import exposure_files, exposure_lines_of
from shared.ports import BlobStore

CLEARED_NAME: Final = "lake/exposures_cleared.json"
WRITTEN_AFTER_MS: Final = 5 * 60_000
"""A worker has written a minute's file for the last time by then; one whose store is away writes it when it is back."""
_LATEST_DAYS: Final = 2


class ClearedExposures(Struct, frozen=True, kw_only=True):
    """How far the files are cleared: of the first `erasures`, and what lay in each day's folder then.

    `days` is the digest of a day's file names: a day with other files is looked through again. `lines` went in all.
    """

    erasures: int = 0
    days: Mapping[str, str] = {}
    lines: int = 0


class _Whose(Struct, frozen=True):
    as_of: int
    user_id: str | None = None
    user_key: str | None = None


def clear_exposures(blobs: BlobStore, entries: Sequence[ErasureEntry], key_of: KeyOf, now: int) -> int:
    """Take the pages shown to erased users up to their erasure out of all files; returns how many lines went.

    Only files that may hold one are read: all up to a new erasure, and of those before it what came since. A file of
    the last minutes (`now`, epoch ms) is still its worker's and waits for the next time. Raises CorruptRecord.
    """
    if not entries:
        return 0
    before = _read(blobs)
    users, new = ErasedUsers.of(entries, key_of), ErasedUsers.of(entries[before.erasures :], key_of)
    days: dict[str, str] = {}
    lines = 0
    finished_until = f"{from_ms(now - WRITTEN_AFTER_MS):%Y%m%dT%H%MZ}"
    by_day = [(day, list(files)) for day, files in groupby(exposure_files(blobs), key=lambda file: file[0][:8])]
    latest = {day for day, _ in by_day[-_LATEST_DAYS:]}
    for day, files in by_day:
        names = [name for _, _, name in files]
        come_since = day in latest or before.days.get(day) != _digest(names)
        wanted = _erased_since(users if come_since else new, day)
        for minute, _, name in files if wanted else ():
            if minute < finished_until:
                kept, gone = _clear(blobs, name, wanted)
                lines += gone
                if not kept:
                    names.remove(name)
        days[day] = _digest(names)
    after = ClearedExposures(erasures=len(entries), days=days, lines=before.lines + lines)
    blobs.write(CLEARED_NAME, msgspec.json.encode(after))
    return lines


def lines_gone(blobs: BlobStore) -> int:
    """How many pages went with their users. Raises CorruptRecord."""
    return _read(blobs).lines


def _read(blobs: BlobStore) -> ClearedExposures:
    try:
        return msgspec.json.decode(blobs.read(CLEARED_NAME), type=ClearedExposures)
    except FileNotFoundError:
        return ClearedExposures()
    except msgspec.DecodeError as error:
        raise CorruptRecord(
            f"{CLEARED_NAME} cannot be read ({error}); delete it: all files are looked through"
        ) from error


def _erased_since(users: ErasedUsers, day: str) -> ErasedUsers:
    """Those erased on the day or later: pages of that day may be from before."""
    found = {key: at for key, at in users.erased_at.items() if f"{from_ms(at + WRITTEN_AFTER_MS):%Y%m%d}" >= day}
    return ErasedUsers(found, users.key_of)


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:32]


def _clear(blobs: BlobStore, name: str, users: ErasedUsers) -> tuple[int, int]:
    """How many lines the file keeps, and how many went; one that would keep none is deleted."""
    held = exposure_lines_of(blobs, name)
    try:
        kept = [line for line in held if not _goes(_WHOSE.decode(line), users)]
    except msgspec.DecodeError as error:
        raise CorruptRecord(f"{name} is damaged ({error}); delete it: its exposures are lost") from error
    if not kept:
        blobs.delete(name)
    elif len(kept) < len(held):
        blobs.write(name, gzip.compress(b"".join(line + b"\n" for line in kept), compresslevel=6, mtime=0))
    return len(kept), len(held) - len(kept)


def _goes(line: _Whose, users: ErasedUsers) -> bool:
    key = line.user_key
    if key is None and line.user_id is not None:
        key = users.key(line.user_id)
    return key is not None and line.as_of <= users.erased_at.get(key, line.as_of - 1)


_WHOSE: Final = msgspec.json.Decoder(_Whose)
