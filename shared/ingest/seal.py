"""Sealing: landing rows become files of the lake, and only what was written is removed from landing."""

from __future__ import annotations

from collections.abc import Iterable

from shared.ingest.lake import highest_sealed, write_sealed
from shared.ports import BlobStore, RetainedLog, StateStore

MOST_ROWS = 5000
"""Rows of one sealed file."""


def seal_partition(source: str, partition: int, *, store: StateStore, blobs: BlobStore) -> int:
    """Drain one partition's landing stream into sealed files and return the number of rows written.

    An end between writing and trimming leaves the rows in both places; the next file then overlaps, and every reader
    drops rows of the same coordinates. What lands meanwhile waits for the next time. Raises InfrastructureFault.
    """
    sealed = 0
    while True:
        rows = store.oldest_landing_rows(source, partition, MOST_ROWS)
        if not rows:
            return sealed
        write_sealed(blobs, rows)
        store.trim_landing(source, partition, rows[-1])
        sealed += len(rows)
        if len(rows) < MOST_ROWS:
            return sealed


def seal_landing(source: str, partitions: Iterable[int], *, store: StateStore, blobs: BlobStore) -> int:
    """Seal every partition of a source and return the number of rows written. Raises InfrastructureFault."""
    return sum(seal_partition(source, partition, store=store, blobs=blobs) for partition in partitions)


def trim_broker(source: str, partitions: Iterable[int], *, broker: RetainedLog, blobs: BlobStore) -> None:
    """Let the broker forget what the lake holds, and nothing above. Raises InfrastructureFault."""
    for partition in partitions:
        sealed = highest_sealed(blobs, source, partition)
        if sealed is not None:
            broker.trim_below(partition, sealed.sequence + 1)
