"""The composition root: settings -> adapters -> services, once per worker. Clocks and randomness enter here alone."""

from __future__ import annotations

import atexit
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from functions.access.admission import Admission
from functions.access.identification import Identification, open_identification
from functions.access.signing_keys import SigningKeys
from functions.background import Background
from functions.catalogue.catalog_reader import CatalogReader
from functions.catalogue.catalogue_browser import CatalogueBrowser
from functions.catalogue.catalogue_writer import CatalogueWriter
from functions.dead_letter_desk import DeadLetterDesk
from functions.erasure.erasure_services import Erasures, open_erasures
from functions.event_intake import EventIntake
from functions.folding import Folding, open_folding
from functions.metrics import Metrics
from functions.outside import open_outside
from functions.pages.exposure_writer import ExposureWriter
from functions.pages.profile_reader import ProfileReader
from functions.pages.recommender import Recommender
from functions.pages.recorded_pages import RecordedPages
from functions.preferences.preference_keeper import PreferenceKeeper
from functions.preferences.preference_setter import PreferenceSetter
from functions.process_events import EventIngest
from functions.readiness import Readiness
from functions.releases.item_follower import ItemFollower
from functions.releases.release_desk import ReleaseDesk
from functions.releases.release_watcher import ReleaseWatcher
from functions.seal_lake import LakeSealer
from functions.search.search_services import open_searcher
from functions.search.searcher import Searcher
from functions.serving import Serving, open_serving
from functions.state_health import StateHealth
from shared.adapters.broker import Broker
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_versions import StateVersions
from shared.log_lines import write_log_lines
from shared.settings import Settings

log = logging.getLogger(__name__)

EXPOSURE_LOOK_MS = 1000
VERSIONS_LOOK_MS = 3000
PREFERENCES_LOOK_MS = 250
"""So soon after Redis is back every worker knows what was set meanwhile."""
SIGNING_KEYS_LOOK_MS = 300_000


def now_ms() -> int:
    """The clock: epoch milliseconds."""
    return time.time_ns() // 1_000_000


def random_id() -> str:
    """32 hexadecimal digits."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Services:
    """Everything a worker does, wired. `start` begins the background threads, `close` ends them and flushes."""

    settings: Settings
    metrics: Metrics
    clock: Callable[[], int]
    releases: ReleaseWatcher
    follower: ItemFollower
    recommender: Recommender
    catalog: CatalogReader
    searcher: Searcher
    browser: CatalogueBrowser
    catalogue_writer: CatalogueWriter
    profiles: ProfileReader
    keeper: PreferenceKeeper
    pages: RecordedPages
    preference_setter: PreferenceSetter
    intake: EventIntake
    erasures: Erasures
    exposures: ExposureWriter
    readiness: Readiness
    ingest: EventIngest
    sealer: LakeSealer
    broker: Broker
    release_desk: ReleaseDesk
    dead_letters: DeadLetterDesk
    identification: Identification | None
    admission: Admission
    refresh: Callable[[], None]
    background: tuple[Background, ...]
    _closed: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Load what is published, as far as it can be had now, and keep up with it from then on."""
        if self.identification is None:
            log.warning("ACCESS CONTROL IS OFF: everyone who reaches this API may read and change everything; AUTH=on")
        self.broker.warm_up()
        for each in self.background:
            each.take_step()
            each.start()

    def close(self) -> None:
        """End the threads and write the exposures; closing twice does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        for each in self.background:
            each.stop()
        self.exposures.close()
        self.broker.close()


def compose(
    settings: Settings,
    *,
    clock: Callable[[], int] = now_ms,
    new_id: Callable[[], str] = random_id,
    seconds: Callable[[], float] = time.monotonic,
) -> Services:
    """Wire a worker's services; no connection is made yet. Raises ConfigurationError.

    `clock` tells epoch ms, `seconds` never goes back, and `new_id` gives 32 hexadecimal digits that never come again.
    """
    outside = open_outside(settings, clock, seconds, new_id)
    identification, signing_keys = open_identification(settings, clock, seconds)
    serving, folding = open_serving(outside), open_folding(outside)
    blobs, metrics, releases, keeper = outside.blobs, outside.metrics, serving.releases, serving.keeper
    exposures = ExposureWriter(blobs, worker_name(), clock, metrics)
    intake = EventIntake(
        outside.broker.producer,
        settings.event_source,
        keeper=keeper,
        circuit=outside.log_circuit,
        metrics=metrics,
        clock=clock,
    )
    erasures = open_erasures(outside, keeper, folding)
    return Services(
        settings=settings,
        metrics=metrics,
        clock=clock,
        releases=releases,
        follower=serving.follower,
        recommender=Recommender(
            settings=settings,
            releases=releases,
            reader=serving.reader,
            keeper=keeper,
            circuit=outside.state_circuit,
            exposures=exposures,
            metrics=metrics,
            clock=clock,
            new_id=new_id,
        ),
        catalog=CatalogReader(releases, serving.reader, outside.state_circuit),
        searcher=open_searcher(outside, serving, exposures),
        browser=CatalogueBrowser(releases),
        catalogue_writer=CatalogueWriter(intake, releases, clock, new_id),
        profiles=ProfileReader(releases, keeper),
        keeper=keeper,
        pages=RecordedPages(
            blobs=blobs,
            exposures=exposures,
            releases=releases,
            keeper=keeper,
            clock=clock,
            sampling=settings.exposure_sampling,
        ),
        preference_setter=PreferenceSetter(intake, clock, new_id),
        intake=intake,
        erasures=erasures,
        exposures=exposures,
        readiness=Readiness(
            state_client=outside.page_client,
            broker=outside.broker.prompt,
            releases=releases,
            versions=StateHealth(folding.versions, StateVersions(outside.page_client), outside.live),
            blobs=blobs,
            clock=clock,
            followed_at=lambda: serving.followed.at,
        ),
        ingest=folding.ingest,
        sealer=LakeSealer(
            live=outside.live,
            store=folding.store,
            blobs=blobs,
            broker=outside.broker.reader,
            ingest=folding.ingest,
            finish_erasures=erasures.finisher.run,
            metrics=metrics,
        ),
        broker=outside.broker,
        release_desk=ReleaseDesk(RedisReleaseStore(outside.fold_client), blobs),
        dead_letters=DeadLetterDesk(blobs, folding.store, outside.live, outside.broker.producer, clock),
        identification=identification,
        admission=Admission(settings, identification, seconds),
        refresh=serving.followed.refresh,
        background=_background(settings, serving, folding, exposures, signing_keys),
    )


def _background(
    settings: Settings,
    serving: Serving,
    folding: Folding,
    exposures: ExposureWriter,
    signing_keys: SigningKeys | None,
) -> tuple[Background, ...]:
    keys = [] if signing_keys is None else [Background("signing-keys", signing_keys.refresh, SIGNING_KEYS_LOOK_MS)]
    return (
        *keys,
        Background("release-watcher", serving.followed.refresh, settings.allocation_poll_ms),
        Background("version-keeper", folding.versions.refresh, VERSIONS_LOOK_MS),
        Background("item-follower", serving.followed.follow, settings.item_poll_ms),
        Background("preference-keeper", serving.keeper.keep_up, PREFERENCES_LOOK_MS),
        Background("exposure-writer", exposures.write_finished, EXPOSURE_LOOK_MS),
    )


def worker_name() -> str:
    """A name that no other process has, nor this one after a restart."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:30].strip("-") or "worker"
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


_lock = threading.Lock()
_composed: list[Services] = []


def services() -> Services:
    """The worker's services from the environment, composed and started at the first call, once.

    Azure starts an ASGI application once per concurrent first request, hence the lock. Raises ConfigurationError.
    """
    if not _composed:
        with _lock:
            if not _composed:
                settings = Settings.from_environment(os.environ)
                write_log_lines(settings.log_level, settings.log_format)
                composed = compose(settings)
                composed.start()
                atexit.register(composed.close)
                _composed.append(composed)
    return _composed[0]


def close() -> None:
    """Close what `services` composed, if it did."""
    with _lock:
        for composed in _composed:
            composed.close()
        _composed.clear()
