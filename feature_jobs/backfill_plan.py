"""What a backfill loads of one event source: which files, and up to which mark of each partition."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.errors import LakeConflict
from shared.ingest.erased_users import ErasedUsers
from shared.ingest.lake_files import read_file
from shared.ingest.lake_manifest import FileEntry, LakeManifest
from shared.ingest.lake_sealed import SealedFile, not_yet_in, read_sealed, sealed_files
from shared.ports import BlobStore, Mark

_READERS: Final = 2


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The files that hold a source's partitions without mark, and the mark that each partition will have."""

    source: str
    marks: Mapping[int, Mark]
    files: tuple[FileEntry, ...]
    sealed: tuple[SealedFile, ...]
    erased: ErasedUsers = field(repr=False)
    """Their rows may name them by their ids or by their keyed hashes."""

    @property
    def rows(self) -> int:
        """About how many rows the files hold."""
        return sum(file.rows for file in self.files) + sum(file.last - file.first + 1 for file in self.sealed)


@dataclass(slots=True)
class _Run:
    """Sequences that follow each other, with the enqueued_at of the last row (None: a sealed file knows)."""

    first: int
    last: int
    last_at: int | None
    sealed: SealedFile | None = None


@dataclass(slots=True)
class _Coverage:
    """Which sequences of one partition the lake holds."""

    runs: list[_Run] = field(default_factory=list)

    def end(self) -> tuple[_Run | None, int | None]:
        """The run that ends what is there from sequence 0 on, and the first sequence behind a hole, if there is one."""
        reached: _Run | None = None
        for run in sorted(self.runs, key=lambda run: run.first):
            position = -1 if reached is None else reached.last
            if run.first > position + 1:
                return reached, position + 1
            if run.last > position:
                reached = run
        return reached, None


def plan_load(
    blobs: BlobStore, manifest: LakeManifest, source: str, missing: Collection[int], erased: ErasedUsers
) -> LoadPlan:
    """Plan the load of these partitions, each from sequence 0 to the first that the lake lacks.

    What lies behind a hole is the stream's gap rule's business. `erased` is everybody who was erased, whatever the
    source that says so. Reads the coordinates of every file once, a file at a time. Raises LakeConflict when a file is
    gone or damaged.
    """
    wanted = {str(partition) for partition in missing}
    files = tuple(one for one in manifest.files if one.source == source and wanted & one.first.keys())
    sealed = tuple(one for one in not_yet_in(sealed_files(blobs, source), manifest) if one.partition in missing)
    coverage = {partition: _Coverage() for partition in missing}
    with ThreadPoolExecutor(_READERS) as pool:
        for runs in pool.map(lambda entry: list(_runs_of(read_coordinates(blobs, entry))), files):
            for partition, run in runs:
                if partition in coverage:
                    coverage[partition].runs.append(run)
    for file in sealed:
        coverage[file.partition].runs.append(_Run(file.first, file.last, None, file))
    marks = {}
    for partition in sorted(missing):
        reached, lacking = coverage[partition].end()
        if lacking is not None:
            print(f"    {source}/{partition}: the lake lacks sequence {lacking}; loaded up to there", flush=True)
        if reached is not None:
            marks[partition] = _mark_of(blobs, reached)
    return LoadPlan(source, marks, files, sealed, erased)


def read_coordinates(blobs: BlobStore, entry: FileEntry) -> pa.Table:
    """Partition, sequence, last_sequence and enqueued_at of a file. Raises LakeConflict."""
    return read_lake_file(blobs, entry, ("partition", "sequence", "last_sequence", "enqueued_at"))


def read_lake_file(blobs: BlobStore, entry: FileEntry, columns: Sequence[str] | None = None) -> pa.Table:
    """A file of the lake's manifest; raises LakeConflict also when it is gone by now."""
    try:
        return read_file(blobs, entry, columns)
    except FileNotFoundError as error:
        raise LakeConflict(
            f"{entry.name} is gone: the lake was compacted or ingested meanwhile; run it again"
        ) from error


def _mark_of(blobs: BlobStore, run: _Run) -> Mark:
    if run.sealed is None:
        assert run.last_at is not None, "only a sealed file's run comes without its instant"
        return Mark(run.last, run.last_at)
    try:
        return Mark(run.last, read_sealed(blobs, run.sealed.name)[-1].enqueued_at)
    except FileNotFoundError as error:
        raise LakeConflict(f"{error} any more: the lake was compacted meanwhile; run it again") from error


def _runs_of(table: pa.Table) -> Iterator[tuple[int, _Run]]:
    """The runs of a file, whose rows are ordered by (partition, sequence)."""
    partitions, sequences, at = (np.asarray(table[name]) for name in ("partition", "sequence", "enqueued_at"))
    ends: NDArray[np.int64] = np.asarray(pc.coalesce(table["last_sequence"], table["sequence"]))
    if not len(partitions):
        return
    fresh = (np.diff(partitions) != 0) | (sequences[1:] > ends[:-1] + 1)
    starts = np.r_[0, np.flatnonzero(fresh) + 1]
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(partitions)], strict=True):
        last = stop - 1
        yield int(partitions[start]), _Run(int(sequences[start]), int(ends[last]), int(at[last]))
