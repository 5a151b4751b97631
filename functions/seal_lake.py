"""Timer: drains the landing streams into files of the lake, lets quiet partitions heal, goes on with erasures."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import replace

from functions.metrics import Metrics
from functions.process_events import EventIngest
from shared.events import EventSource
from shared.ingest.lake import LakeManifest, SourceEntry, read_manifest, write_manifest
from shared.ingest.partitioning import with_live
from shared.ingest.seal import seal_landing, trim_broker
from shared.ports import BlobStore, RetainedLog, StateStore

log = logging.getLogger(__name__)


class LakeSealer:
    """Seals every source that may have rows in landing: ingested history has those of erasures."""

    def __init__(
        self,
        *,
        live: EventSource,
        store: StateStore,
        blobs: BlobStore,
        broker: RetainedLog,
        ingest: EventIngest,
        finish_erasures: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        """`live` is the present stream; the other sources are known from the lake manifest."""
        self._live = live
        self._store = store
        self._blobs = blobs
        self._broker = broker
        self._ingest = ingest
        self._finish_erasures = finish_erasures
        self._metrics = metrics

    def run(self) -> int:
        """Seal, let the broker forget what the lake holds, catch up, finish erasures; returns the rows sealed.

        Raises InfrastructureFault when something does not answer; the next minute goes on where this one ended.
        """
        try:
            return self._seal()
        finally:  # a partition that cannot go on holds no erasure up
            self._metrics.open_erasures.set(self._finish_erasures())

    def _seal(self) -> int:
        manifest = read_manifest(self._blobs)
        live = self._with_earlier_counts(manifest)
        others = () if manifest is None else manifest.sources
        sealed = 0
        for source in (live, *(one.event_source() for one in others if one.name != live.name)):
            sealed += seal_landing(source.name, source.partitions(), store=self._store, blobs=self._blobs)
        self._metrics.sealed.inc(sealed)
        trim_broker(live.name, live.partitions(), broker=self._broker, blobs=self._blobs)
        self._ingest.catch_up(live.partitions())
        if sealed:
            log.info("sealed %d rows", sealed)
        return sealed

    def _with_earlier_counts(self, manifest: LakeManifest | None) -> EventSource:
        """The live source with the counts the lake knows; a count it does not know yet is written down.

        Raises LakeConflict when a night moved the manifest meanwhile; the next minute tries again.
        """
        if manifest is None:
            return self._live
        held = manifest.source(self._live.name)
        (known,) = with_live([] if held is None else [held.event_source()], self._live)
        if held is None or set(known.partition_counts) != set(held.partition_counts):
            entry = SourceEntry(name=known.name, partition_counts=known.partition_counts, ours=known.ours)
            others = tuple(one for one in manifest.sources if one.name != known.name)
            after = replace(manifest, version=manifest.version + 1, sources=(*others, entry))
            write_manifest(self._blobs, after)
            log.info("the lake knows that %s has had %s partitions", known.name, known.partition_counts)
        return known
