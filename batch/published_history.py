"""A shop's history, read and ready, and writing it into the lake with what was rejected beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from batch.progress import progress
from shared.ingest.lake_history import publish_history
from shared.ingest.lake_manifest import LakeManifest, ShopSettings, read_manifest
from shared.ports import BlobStore

REJECTS_FOLDER: Final = "lake/rejects/"


@dataclass(frozen=True, slots=True)
class History:
    """What a data set was made into: nothing is written yet.

    `fingerprint` is of everything that `tables` (unnumbered rows in time order, see `publish_history`) are made of and
    of the number of partitions; `rejects` are CSV files by what their name has behind the source's; `behaviour` counts
    the rows that are no catalogue rows; `told` are the lines that say what was read and what was rejected.
    """

    shop: ShopSettings
    shift_weeks: int
    fingerprint: str
    tables: Callable[[], Iterable[pa.Table]]
    rejects: Callable[[], Mapping[str, bytes]]
    behaviour: int
    told: Sequence[str]

    @property
    def source(self) -> str:
        """The event source's name."""
        return f"history-{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class Ingestion:
    """What one ingestion did; `written` is false when the lake held the same content already."""

    source: str
    written: bool
    manifest: LakeManifest


def write_history(blobs: BlobStore, history: History, partition_count: int) -> Ingestion:
    """Publish a history with its rejects beside it; older history is replaced, the same one is left alone.

    Raises LakeConflict when another writer was faster.
    """
    held = read_manifest(blobs)
    if held is not None and held.source(history.source) is not None and held.shop == history.shop:
        return Ingestion(history.source, written=False, manifest=held)
    rejects = {rejects_name(history.source, behind): data for behind, data in history.rejects().items()}
    for name, data in rejects.items():
        blobs.write(name, data)
    with progress("writing events", None, "events") as advance:
        tables = _counted(history.tables(), advance)
        manifest = publish_history(blobs, history.source, partition_count, history.shop, tables, history.shift_weeks)
    for name in list(blobs.names(REJECTS_FOLDER)):
        if name not in rejects:
            blobs.delete(name)
    return Ingestion(history.source, written=True, manifest=manifest)


def rejects_name(source: str, behind: str = "") -> str:
    """Where a source's rejected rows are kept."""
    return f"{REJECTS_FOLDER}{source}{behind}.csv"


def _counted(tables: Iterable[pa.Table], advance: Callable[[int], None]) -> Iterator[pa.Table]:
    for table in tables:
        yield table
        advance(table.num_rows)
