"""The lake manifest: the one document that says which files, sources and shop settings are the lake."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from shared.errors import CorruptRecord, LakeConflict
from shared.events import EventSource
from shared.ports import BlobStore, Mark

MANIFEST_NAME = "lake/lake_manifest.json"


class ShopSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the shop decides and every stage obeys.

    `time_zone` is an IANA name; bought things are withheld for `bought_window_days`; `positives` are the event types
    a ranker learns from; `currency` is ISO 4217.
    """

    name: str = "shop"
    time_zone: str = "UTC"
    bought_window_days: int = 30
    positives: tuple[str, ...] = ("purchase", "cart")
    currency: str = "GBP"


class SourceEntry(Struct, frozen=True, kw_only=True):
    """One event source of the lake; `shift_weeks` is by how many shop-local weeks history was moved."""

    name: str
    partition_counts: tuple[int, ...]
    ours: bool = True
    kind: Literal["history", "live"] = "live"
    shift_weeks: int = 0

    def event_source(self) -> EventSource:
        """The source as the core knows it."""
        return EventSource(self.name, self.partition_counts, self.ours)


class FileEntry(Struct, frozen=True, kw_only=True):
    """One Parquet file of one source and one UTC day (YYYY-MM-DD) of enqueued_at.

    `first` and `last` hold the lowest and highest sequence per partition number, which is text in JSON. The file holds
    nothing of the first `cleared` users of the erasures; -1: nobody has looked.
    """

    name: str
    source: str
    day: str
    first: dict[str, int]
    last: dict[str, int]
    rows: int
    sha256: str
    cleared: int = -1


class ErasuresFile(Struct, frozen=True, kw_only=True):
    """The list of everybody who was erased by what this manifest's files hold: `count` of them, in order of arrival."""

    name: str
    sha256: str
    count: int


class LakeManifest(Struct, frozen=True, kw_only=True):
    """Everything a reader needs to know; `version` grows by one with each write.

    `marks` is source -> partition -> (sequence, enqueued_at): the files hold everything up to there. `sealed_inputs` is
    the sealed files that are in, with the enqueued_at of their last row, until they are deleted. `left_over` is what
    this version has replaced: it is deleted right afterwards, or by the next compaction. `erasures` is None until a
    compaction has looked for them.
    """

    version: int
    shop: ShopSettings
    sources: tuple[SourceEntry, ...] = ()
    files: tuple[FileEntry, ...] = ()
    marks: dict[str, dict[str, tuple[int, int]]] = {}
    sealed_inputs: dict[str, int] = {}
    left_over: tuple[str, ...] = ()
    erasures: ErasuresFile | None = None

    def source(self, name: str) -> SourceEntry | None:
        """The entry of a source, or None."""
        return next((entry for entry in self.sources if entry.name == name), None)

    def history(self) -> tuple[SourceEntry, ...]:
        """The ingested sources."""
        return tuple(entry for entry in self.sources if entry.kind == "history")

    def mark(self, source: str, partition: int) -> Mark | None:
        """Up to where the manifest's files hold this partition, or None when they hold nothing of it."""
        found = self.marks.get(source, {}).get(str(partition))
        return None if found is None else Mark(*found)


def read_manifest(blobs: BlobStore) -> LakeManifest | None:
    """The manifest, or None where nothing was published yet. Raises CorruptRecord when it cannot be decoded."""
    body = _stored(blobs)
    return None if body is None else _decode(body)


def write_manifest(blobs: BlobStore, manifest: LakeManifest) -> None:
    """Replace the manifest in one atomic write.

    Raises:
        LakeConflict: `version` is not the stored version + 1, so another writer was faster; nothing was written.
    """
    held = _stored(blobs)
    stands = 0 if held is None else _decode(held).version
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    if manifest.version != stands + 1 or not blobs.replace(MANIFEST_NAME, body, held):
        raise LakeConflict(
            f"the lake manifest moved to version {stands} while version {manifest.version} was prepared: "
            "another ingest or compaction ran; run the command again"
        )


def _stored(blobs: BlobStore) -> bytes | None:
    try:
        return blobs.read(MANIFEST_NAME)
    except FileNotFoundError:
        return None


def _decode(body: bytes) -> LakeManifest:
    try:
        return msgspec.json.decode(body, type=LakeManifest)
    except msgspec.DecodeError as error:
        raise CorruptRecord(
            f"{MANIFEST_NAME} cannot be read ({error}); restore it or ingest into a new folder"
        ) from error
