"""What folds events into state, for the state versions that are needed."""

from __future__ import annotations

from dataclasses import dataclass

from functions.outside import Outside
from functions.process_events import EventIngest
from functions.version_keeper import VersionKeeper, recording
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.redis_versions import StateVersions
from shared.ingest.processor import EventProcessor, OnBroken
from shared.ingest.state_versions import CURRENT_VERSION


@dataclass(frozen=True)
class Folding:
    """Shared by the event trigger and the timers."""

    store: RedisStateStore
    versions: VersionKeeper
    ingest: EventIngest
    on_broken: OnBroken


def open_folding(outside: Outside) -> Folding:
    """Over the fold's client."""
    source = outside.settings.event_source
    store = RedisStateStore(outside.fold_client, outside.settings.user_key_secret)
    states = StateVersions(outside.fold_client)
    on_broken = recording(states, outside.metrics)
    processor = EventProcessor(
        source,
        store=store,
        versions=(CURRENT_VERSION,),
        blobs=outside.blobs,
        broker=outside.broker.reader,
        on_broken=on_broken,
    )
    versions = VersionKeeper(RedisReleaseStore(outside.fold_client), states, outside.blobs, processor.keep)
    ingest = EventIngest(source, processor, outside.metrics, versions.ensure)
    return Folding(store, versions, ingest, on_broken)
