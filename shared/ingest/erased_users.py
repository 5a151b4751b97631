"""Who was erased and when, as the lake tells it: the list that every later compaction and reader goes by."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import Struct

from shared.errors import ConfigurationError, CorruptRecord, LakeConflict
from shared.events import Event, EventType
from shared.ingest.lake_manifest import ErasuresFile, LakeManifest
from shared.ingest.lake_rows import parse_landing_line
from shared.ingest.lake_sealed import SealedFile, not_yet_in, sealed_files
from shared.ingest.logged_body import decode_logged
from shared.ports import BlobStore, LandingRow, Verdict

ERASED_FOLDER: Final = "lake/erased/"
CLOCKS_APART_MS: Final = 3600 * 1000
"""How far the clock that names an erasure's instant and the broker's may be apart."""

KeyOf = Callable[[str], str]
"""A user's id to the keyed hash that stands for her, 32 hexadecimal digits."""


def no_secret(_user_id: str) -> str:
    """The `KeyOf` of who has no secret; raises ConfigurationError as soon as somebody was erased."""
    raise ConfigurationError("the lake holds erasures, whose users are found by USER_KEY_SECRET, and none was given")


class ErasureEntry(Struct, frozen=True, array_like=True):
    """One erasure: the keyed hash of the user, its instant (epoch ms) and the id of its receipt."""

    user_key: str
    erased_at: int
    receipt: str


@dataclass(frozen=True, slots=True)
class ErasureCopy:
    """An erasure as one partition's log holds it."""

    entry: ErasureEntry
    source: str
    partition: int
    sequence: int
    enqueued_at: int


@dataclass(slots=True)
class ErasedUsers:
    """Users by the newest instant at which they were erased; ids are hashed once each, however often they are asked."""

    erased_at: dict[str, int]
    key_of: KeyOf
    _keys: dict[str, str] = field(default_factory=dict)
    _others: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, entries: Iterable[ErasureEntry], key_of: KeyOf) -> ErasedUsers:
        """Of these erasures."""
        newest: dict[str, int] = {}
        for one in entries:
            newest[one.user_key] = max(one.erased_at, newest.get(one.user_key, one.erased_at))
        return cls(newest, key_of)

    def __bool__(self) -> bool:
        """Whether anybody was erased at all."""
        return bool(self.erased_at)

    def among(self, user_ids: Collection[str]) -> dict[str, str]:
        """Those of these ids whose users were erased, with their keyed hashes."""
        asked = set(user_ids)
        unknown = asked - self._others - self._keys.keys()
        keys = {user_id: self.key_of(user_id) for user_id in unknown}
        found = {user_id: key for user_id, key in keys.items() if key in self.erased_at}
        self._keys |= found
        self._others |= unknown - found.keys()
        return {user_id: self._keys[user_id] for user_id in asked & self._keys.keys()}

    def key(self, user_id: str) -> str | None:
        """The keyed hash of a user who was erased, None for everybody else."""
        return self.among((user_id,)).get(user_id)


def erasure_of(event: Event, key_of: KeyOf) -> ErasureEntry:
    """What a `user_erased` event says, in keyed form or with an id as foreign producers send it.

    The latter names no receipt; a number made from its event id stands for one.
    """
    if event.user_id is None:
        said = event.erasure()
        return ErasureEntry(said.user_key, event.occurred_at_ms, said.receipt)
    return ErasureEntry(key_of(event.user_id), event.occurred_at_ms, key_of(f"receipt {event.event_id}"))


def erasures_sealed(blobs: BlobStore, files: Iterable[SealedFile], key_of: KeyOf) -> list[ErasureCopy]:
    """The accepted erasures in sealed files; only lines that can be one are decoded. Raises FileNotFoundError."""
    found = []
    for file in files:
        for line in _lines_that_erase(blobs, file.name):
            row = parse_landing_line(line)
            copy = _copy_of(row, key_of)
            if copy is not None:
                found.append(copy)
    return found


def _lines_that_erase(blobs: BlobStore, name: str) -> list[bytes]:
    try:
        text = gzip.decompress(blobs.read(name))
    except (OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise CorruptRecord(f"{name} is damaged ({error}); restore it, or rebuild it from the broker log") from error
    # A body that is no one-line JSON travels as base64, and whatever has letters escaped holds a backslash.
    wanted = (b"user_erased", b'"raw":', b"\\u")
    if not any(word in text for word in wanted):
        return []
    return [line for line in text.splitlines() if any(word in line for word in wanted)]


def _copy_of(row: LandingRow, key_of: KeyOf) -> ErasureCopy | None:
    if row.verdict is not Verdict.ACCEPTED:
        return None
    event = decode_logged(row.body)
    if event.event_type is not EventType.USER_ERASED:
        return None
    return ErasureCopy(erasure_of(event, key_of), row.source, row.partition, row.sequence, row.enqueued_at)


def read_erasures(blobs: BlobStore, manifest: LakeManifest | None) -> list[ErasureEntry]:
    """Every erasure that the manifest's files hold, in order of arrival. Raises LakeConflict when the list is gone."""
    if manifest is None or manifest.erasures is None or manifest.erasures.count == 0:
        return []
    held = manifest.erasures
    try:
        body = blobs.read(held.name)
    except FileNotFoundError as error:
        raise LakeConflict(f"{held.name} is gone; read again, or restore it: it says who was erased") from error
    if hashlib.sha256(body).hexdigest() != held.sha256:
        raise LakeConflict(f"{held.name} differs from its checksum in the lake manifest; restore it")
    return msgspec.json.decode(body, type=list[ErasureEntry])


def write_erasures(blobs: BlobStore, entries: Sequence[ErasureEntry]) -> ErasuresFile:
    """Write the list under the name its content gives it, and describe it for a manifest."""
    body = msgspec.json.encode(entries)
    digest = hashlib.sha256(body).hexdigest()
    name = f"{ERASED_FOLDER}{digest}.json"
    blobs.write(name, body)
    return ErasuresFile(name=name, sha256=digest, count=len(entries))


def fresh_erasures(blobs: BlobStore, manifest: LakeManifest | None, key_of: KeyOf) -> list[ErasureCopy]:
    """The accepted erasures that are sealed and not compacted yet. Raises LakeConflict."""
    try:
        return erasures_sealed(blobs, not_yet_in(sealed_files(blobs), manifest), key_of)
    except FileNotFoundError as error:
        raise LakeConflict(f"{error} any more: the lake was compacted meanwhile; run it again") from error


def erased_users(blobs: BlobStore, manifest: LakeManifest | None, key_of: KeyOf) -> ErasedUsers:
    """Everybody erased by what the lake holds, compacted or only sealed. Raises LakeConflict."""
    fresh = fresh_erasures(blobs, manifest, key_of)
    return ErasedUsers.of([*read_erasures(blobs, manifest), *(copy.entry for copy in fresh)], key_of)


def count_erasures(manifest: LakeManifest | None) -> int:
    """How many erasures the manifest's files are cleared of: what a stage that reads them is without, too."""
    return 0 if manifest is None or manifest.erasures is None else manifest.erasures.count
