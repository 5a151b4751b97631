"""The part of compaction that erases: which users, which files hold them, and the files without them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
import pyarrow.compute as pc

from batch.progress import progress
from shared.events import EventType
from shared.ingest.erased_users import (
    ErasedUsers,
    ErasureCopy,
    ErasureEntry,
    KeyOf,
    erasures_sealed,
    read_erasures,
    write_erasures,
)
from shared.ingest.lake_files import read_file, write_file
from shared.ingest.lake_history import HISTORY_FOLDER
from shared.ingest.lake_manifest import ErasuresFile, FileEntry, LakeManifest
from shared.ingest.lake_sealed import SealedFile
from shared.ingest.redaction import MATCHED_BY, Redaction, erasures_unseen, redact
from shared.ports import BlobStore

DAYS_FOLDER: Final = "lake/days/"
_READERS: Final = 2


@dataclass(slots=True)
class LakeErasures:
    """The erasures of a compaction: all that were ever seen, and the copies that this one sees for the first time."""

    held: ErasuresFile | None
    entries: list[ErasureEntry]
    copies: list[ErasureCopy]
    key_of: KeyOf
    redaction: Redaction = field(init=False)
    """Of everybody, for rows that are new to the lake."""

    def __post_init__(self) -> None:
        """Bring the newest instants together."""
        users = ErasedUsers.of(self.entries, self.key_of)
        self.redaction = Redaction.of(users, self.copies)

    @classmethod
    def of(cls, blobs: BlobStore, before: LakeManifest, fresh: Sequence[SealedFile], key_of: KeyOf) -> LakeErasures:
        """What the manifest knows, and what files hold that nobody has looked into: new sealed ones, new history.

        Raises LakeConflict, CorruptRecord.
        """
        known = read_erasures(blobs, before)
        copies = erasures_sealed(blobs, fresh, key_of)
        copies += erasures_unseen(blobs, before, key_of)
        new = dict.fromkeys(copy.entry for copy in copies)
        held = set(known)
        return cls(before.erasures, [*known, *(one for one in new if one not in held)], copies, key_of)

    @property
    def count(self) -> int:
        """How many there are: what a file of the new manifest is cleared of."""
        return len(self.entries)

    def write(self, blobs: BlobStore) -> ErasuresFile:
        """The list for the new manifest; written only where it grew."""
        if self.held is not None and self.held.count == self.count:
            return self.held
        return write_erasures(blobs, self.entries)

    def touch(self, entry: FileEntry) -> bool:
        """Whether a file may hold somebody it was not cleared of."""
        return entry.cleared < self.count or bool(self.copies)

    def redactions(self, files: Sequence[FileEntry]) -> Iterator[tuple[Redaction, list[FileEntry]]]:
        """Files with the redaction each needs: of erasures since it was cleared, and of those seen now."""
        groups: defaultdict[int, list[FileEntry]] = defaultdict(list)
        for entry in files:
            if self.touch(entry):
                groups[max(entry.cleared, 0)].append(entry)
        newest = self.redaction.users.erased_at
        for cleared, members in sorted(groups.items()):
            keys = {one.user_key for one in self.entries[cleared:]} | {copy.entry.user_key for copy in self.copies}
            users = ErasedUsers({key: newest[key] for key in sorted(keys)}, self.key_of)
            yield Redaction.of(users, self.copies), members


def clear_files(blobs: BlobStore, files: Sequence[FileEntry], erasures: LakeErasures) -> dict[str, FileEntry]:
    """The entries of the new manifest by the names of these files: rewritten where a file held what goes.

    Only the columns that tell are read of files that hold nothing of it. Raises LakeConflict, FileNotFoundError.
    """
    cleared: dict[str, FileEntry] = {}
    for redaction, members in erasures.redactions(files):
        with progress("looking for erased users", len(members), "files") as advance, _pool() as pool:
            asked = members if redaction.users else []
            found = [*pool.map(partial(_holds, blobs, redaction), asked), *[False] * (len(members) - len(asked))]
            for entry, holds in zip(members, found, strict=True):
                written = _rewritten(blobs, entry, redaction) if holds else entry
                cleared[entry.name] = msgspec.structs.replace(written, cleared=erasures.count)
                advance(1)
    return cleared


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_READERS)


def _holds(blobs: BlobStore, redaction: Redaction, entry: FileEntry) -> bool:
    rows = read_file(blobs, entry, MATCHED_BY, as_codes=("source", "event_type", "user_id"))
    if redaction.mask(rows).any():
        return True
    named = pc.and_(pc.equal(rows["event_type"], EventType.USER_ERASED.value), pc.is_valid(rows["user_id"]))
    return bool(pc.any(named).as_py())


def _rewritten(blobs: BlobStore, entry: FileEntry, redaction: Redaction) -> FileEntry:
    rows, _ = redact(read_file(blobs, entry), redaction)
    folder = HISTORY_FOLDER if entry.name.startswith(HISTORY_FOLDER) else DAYS_FOLDER
    name = partial("{}{}/day={}/{}.parquet".format, folder, entry.source, entry.day)
    return write_file(blobs, name, entry.source, entry.day, rows)
