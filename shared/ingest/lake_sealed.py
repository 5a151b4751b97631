"""Sealed files: landing rows as gzip NDJSON, one file a run of sequences of one partition; no Arrow needed."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import CorruptRecord, LakeConflict
from shared.ingest.lake_manifest import LakeManifest, read_manifest
from shared.ingest.lake_rows import landing_line, parse_landing_line
from shared.ports import BlobStore, LandingRow, Mark

SEALED_FOLDER = "lake/sealed/"
_TRIES = 3
_NAME = re.compile(r"lake/sealed/([a-z0-9][a-z0-9-]{0,62})/(\d+)/(\d+)-(\d+)\.ndjson\.gz")


@dataclass(frozen=True, slots=True, order=True)
class SealedFile:
    """A sealed file as its name tells it: sequences `first` to `last`, both included."""

    source: str
    partition: int
    first: int
    last: int
    name: str


def end_of(row: LandingRow) -> int:
    """The last sequence a row stands for: its own, or the end of its skipped range."""
    return row.sequence if row.last_sequence is None else row.last_sequence


def write_sealed(blobs: BlobStore, rows: Sequence[LandingRow]) -> str:
    """Write one partition's rows, ascending, as one file and return its name; equal rows are equal bytes.

    Raises ValueError for no rows, rows of two partitions, or rows out of order.
    """
    if not rows:
        raise ValueError("there are no rows to seal")
    source, partition = rows[0].source, rows[0].partition
    end = rows[0].sequence - 1
    for row in rows:
        if (row.source, row.partition) != (source, partition):
            raise ValueError(
                f"a sealed file holds one partition: {source}/{partition}, not {row.source}/{row.partition}"
            )
        if row.sequence <= end or end_of(row) < row.sequence:
            raise ValueError(f"sequence {row.sequence} of {source}/{partition} comes after {end}; sort the rows")
        end = end_of(row)
    name = f"{SEALED_FOLDER}{source}/{partition}/{rows[0].sequence:019d}-{end:019d}.ndjson.gz"
    blobs.write(name, gzip.compress(b"".join(landing_line(row) + b"\n" for row in rows), compresslevel=6, mtime=0))
    return name


def read_sealed(blobs: BlobStore, name: str) -> list[LandingRow]:
    """The rows of a sealed file. Raises CorruptRecord when it is damaged, FileNotFoundError when it is gone."""
    data = blobs.read(name)
    try:
        lines = gzip.decompress(data).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptRecord(f"{name} is damaged ({error}); restore it, or rebuild it from the broker log") from error
    return [parse_landing_line(line) for line in lines]


def sealed_files(blobs: BlobStore, source: str | None = None, partition: int | None = None) -> list[SealedFile]:
    """The sealed files of all sources, of one, or of one partition, ordered by coordinates.

    Files are sealed in order, so none below the last one listed may be missing from the list; but a listing may miss
    a file that came while it ran and show a younger one. So the folder is listed twice, and what is younger than the
    first listing's last file is left for next time.
    """
    prefix = SEALED_FOLDER
    if source is not None:
        prefix += f"{source}/" if partition is None else f"{source}/{partition}/"
    limits: dict[tuple[str, int], int] = {}
    for file in _listed(blobs, prefix):
        key = (file.source, file.partition)
        limits[key] = max(limits.get(key, -1), file.last)
    return sorted(file for file in _listed(blobs, prefix) if file.last <= limits.get((file.source, file.partition), -1))


def not_yet_in(files: Sequence[SealedFile], manifest: LakeManifest | None) -> list[SealedFile]:
    """The sealed files that reach beyond the manifest's marks."""
    found = []
    for file in files:
        mark = None if manifest is None else manifest.mark(file.source, file.partition)
        if mark is None or file.last > mark.sequence:
            found.append(file)
    return found


def highest_sealed(blobs: BlobStore, source: str, partition: int) -> Mark | None:
    """Up to where the lake holds this partition, in Parquet or sealed; None when it holds nothing of it.

    Raises LakeConflict when its files go as fast as they are read.
    """
    for _ in range(_TRIES):
        manifest = read_manifest(blobs)
        beyond = not_yet_in(sealed_files(blobs, source, partition), manifest)
        if not beyond:
            return None if manifest is None else manifest.mark(source, partition)
        newest = max(beyond, key=lambda file: file.last)
        try:
            return Mark(newest.last, read_sealed(blobs, newest.name)[-1].enqueued_at)
        except FileNotFoundError:
            continue  # a compaction took it in and deleted it: the manifest knows more now
    raise LakeConflict(f"the sealed files of {source}/{partition} go while they are read; try again")


def _listed(blobs: BlobStore, prefix: str) -> list[SealedFile]:
    found = []
    for name in blobs.names(prefix):
        match = _NAME.fullmatch(name)
        if match is not None:
            source, partition, first, last = match.groups()
            found.append(SealedFile(source, int(partition), int(first), int(last), name))
    return found
