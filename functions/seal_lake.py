"""Timer: drains the landing streams into files of the lake, then lets quiet partitions heal."""

from __future__ import annotations

import logging

from functions.metrics import Metrics
from functions.process_events import EventIngest
from shared.events import EventSource
from shared.ingest.lake import read_manifest
from shared.ingest.seal import seal_landing, trim_broker
from shared.ports import BlobStore, RetainedLog, StateStore

log = logging.getLogger(__name__)


class LakeSealer:
    """Seals every live source that may still have rows in landing."""

    def __init__(
        self,
        *,
        live: EventSource,
        store: StateStore,
        blobs: BlobStore,
        broker: RetainedLog,
        ingest: EventIngest,
        metrics: Metrics,
    ) -> None:
        """`live` is the present stream; earlier ones are known from the lake manifest."""
        self._live = live
        self._store = store
        self._blobs = blobs
        self._broker = broker
        self._ingest = ingest
        self._metrics = metrics

    def run(self) -> int:
        """Seal, let the broker forget what the lake holds, catch up; returns the rows sealed.

        Raises InfrastructureFault when something does not answer; the next minute goes on where this one ended.
        """
        sealed = 0
        for source in self._live_sources():
            sealed += seal_landing(source.name, source.partitions(), store=self._store, blobs=self._blobs)
        self._metrics.sealed.inc(sealed)
        trim_broker(self._live.name, self._live.partitions(), broker=self._broker, blobs=self._blobs)
        self._ingest.catch_up()
        if sealed:
            log.info("sealed %d rows", sealed)
        return sealed

    def _live_sources(self) -> list[EventSource]:
        manifest = read_manifest(self._blobs)
        earlier = () if manifest is None else manifest.sources
        others = [one.event_source() for one in earlier if one.kind == "live" and one.name != self._live.name]
        return [self._live, *others]
