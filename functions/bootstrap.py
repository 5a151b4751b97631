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

from functions.admission import Admission
from functions.background import Background
from functions.catalog_reader import CatalogReader
from functions.catalogue_browser import CatalogueBrowser
from functions.catalogue_writer import CatalogueWriter
from functions.circuit import Circuit
from functions.dead_letter_desk import DeadLetterDesk
from functions.erasure_services import Erasures, open_erasures
from functions.event_intake import EventIntake
from functions.exposure_writer import ExposureWriter
from functions.identification import Identification, open_identification
from functions.item_follower import ItemFollower
from functions.loaded_release import ReleaseLoader
from functions.metrics import Metrics
from functions.page_reader import PageReader
from functions.personal_search import PersonalSearch
from functions.preference_keeper import PreferenceKeeper
from functions.preference_setter import PreferenceSetter
from functions.process_events import EventIngest
from functions.profile_reader import ProfileReader
from functions.readiness import Readiness
from functions.recommender import Recommender
from functions.recorded_pages import RecordedPages
from functions.release_desk import ReleaseDesk
from functions.release_search import keep_up
from functions.release_watcher import ReleaseWatcher
from functions.seal_lake import LakeSealer
from functions.searcher import Searcher
from functions.signing_keys import SigningKeys
from functions.state_health import StateHealth
from functions.version_keeper import VersionKeeper, recording
from shared.adapters.blob_address import open_blobs
from shared.adapters.broker import Broker, open_broker
from shared.adapters.redis_connection import connect
from shared.adapters.redis_overlay import RedisOverlays
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_shards import RedisShardReader
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.redis_versions import StateVersions
from shared.errors import BrokerUnavailable, StateUnavailable
from shared.features.definitions import STATE_VERSION
from shared.ingest.partitioning import live_source
from shared.ingest.processor import EventProcessor
from shared.ingest.state_versions import CURRENT_VERSION
from shared.log_lines import write_log_lines
from shared.search.cursor import CursorCodec
from shared.settings import Settings

log = logging.getLogger(__name__)

FOLD_TIMEOUT_MS = 5000
"""The fold and the timers may wait longer for Redis than a page may."""
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
    metrics = Metrics()
    identification, signing_keys = open_identification(settings, clock, seconds)
    blobs = open_blobs(settings.blob_url, settings.blob_connection)
    page_client = connect(
        settings.redis_url, timeout_ms=settings.redis_timeout_ms, connect_timeout_ms=settings.redis_timeout_ms
    )
    fold_client = connect(settings.redis_url, timeout_ms=FOLD_TIMEOUT_MS)
    broker = open_broker(settings)
    live = live_source(settings)
    state_circuit, log_circuit = (
        Circuit(fault, name, seconds, on_open=metrics.faults.labels(name).inc)
        for fault, name in ((StateUnavailable, "redis"), (BrokerUnavailable, "broker_log"))
    )
    lists = RedisReleaseStore(page_client)
    follower = ItemFollower(RedisShardReader(fold_client, settings.user_key_secret, STATE_VERSION))
    releases = ReleaseWatcher(
        store=lists,
        load=ReleaseLoader(blobs, lists, follower, live).load,
        follower=follower,
        seconds=seconds,
        on_load=lambda _id, loaded: metrics.releases.labels("loaded" if loaded else "failed").inc(),
    )
    followed = _Followed(follower, releases, clock)
    metrics.age_gauge("recommndr_items_age_seconds", "Since the items were last followed", followed.age_s)
    exposures = ExposureWriter(blobs, worker_name(), clock, metrics)
    page_reader = PageReader(
        page_client, RedisShardReader(page_client, settings.user_key_secret, STATE_VERSION), settings.user_key_secret
    )
    keeper = PreferenceKeeper(
        releases=releases,
        reader=page_reader,
        overlays=RedisOverlays(page_client, settings.user_key_secret),
        circuit=state_circuit,
        user_secret=settings.user_key_secret,
        clock=clock,
        seconds=seconds,
    )
    intake = EventIntake(
        broker.producer, settings.event_source, keeper=keeper, circuit=log_circuit, metrics=metrics, clock=clock
    )
    store = RedisStateStore(fold_client, settings.user_key_secret)
    states = StateVersions(fold_client)
    on_broken = recording(states, metrics)
    processor = EventProcessor(
        settings.event_source,
        store=store,
        versions=(CURRENT_VERSION,),
        blobs=blobs,
        broker=broker.reader,
        on_broken=on_broken,
    )
    versions = VersionKeeper(RedisReleaseStore(fold_client), states, blobs, processor.keep)
    ingest = EventIngest(settings.event_source, processor, metrics, versions.ensure)
    erasures = open_erasures(
        live=live,
        blobs=blobs,
        broker=broker,
        page_client=page_client,
        fold_client=fold_client,
        keeper=keeper,
        versions=versions,
        on_broken=on_broken,
        state_circuit=state_circuit,
        log_circuit=log_circuit,
        user_secret=settings.user_key_secret,
        clock=clock,
    )
    return Services(
        settings=settings,
        metrics=metrics,
        clock=clock,
        releases=releases,
        follower=follower,
        recommender=Recommender(
            settings=settings,
            releases=releases,
            reader=page_reader,
            keeper=keeper,
            circuit=state_circuit,
            exposures=exposures,
            metrics=metrics,
            clock=clock,
            new_id=new_id,
        ),
        catalog=CatalogReader(releases, page_reader, state_circuit),
        searcher=Searcher(
            releases=releases,
            personal=PersonalSearch(
                settings=settings,
                reader=page_reader,
                keeper=keeper,
                circuit=state_circuit,
                exposures=exposures,
                metrics=metrics,
                new_id=new_id,
            ),
            cursors=CursorCodec(settings.user_key_secret),
        ),
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
            state_client=page_client,
            broker=broker.prompt,
            releases=releases,
            versions=StateHealth(versions, StateVersions(page_client), live),
            blobs=blobs,
            clock=clock,
            followed_at=lambda: followed.at,
        ),
        ingest=ingest,
        sealer=LakeSealer(
            live=live,
            store=store,
            blobs=blobs,
            broker=broker.reader,
            ingest=ingest,
            finish_erasures=erasures.finisher.run,
            metrics=metrics,
        ),
        broker=broker,
        release_desk=ReleaseDesk(RedisReleaseStore(fold_client), blobs),
        dead_letters=DeadLetterDesk(blobs, store, live, broker.producer, clock),
        identification=identification,
        admission=Admission(settings, identification, seconds),
        refresh=followed.refresh,
        background=(
            *(() if signing_keys is None else (_keeping(signing_keys),)),
            Background("release-watcher", followed.refresh, settings.allocation_poll_ms),
            Background("version-keeper", versions.refresh, VERSIONS_LOOK_MS),
            Background("item-follower", followed.follow, settings.item_poll_ms),
            Background("preference-keeper", keeper.keep_up, PREFERENCES_LOOK_MS),
            Background("exposure-writer", exposures.write_finished, EXPOSURE_LOOK_MS),
        ),
    )


def _keeping(keys: SigningKeys) -> Background:
    return Background("signing-keys", keys.refresh, SIGNING_KEYS_LOOK_MS)


class _Followed:
    """Following items and releases, with the instant at which the items were last up to date."""

    def __init__(self, follower: ItemFollower, releases: ReleaseWatcher, clock: Callable[[], int]) -> None:
        self._follower = follower
        self._releases = releases
        self._clock = clock
        self.at: int | None = None

    def refresh(self) -> None:
        self._releases.refresh()
        if self.at is None and self._releases.loaded:
            self.follow()

    def follow(self) -> None:
        at = self._clock()
        self._follower.follow()
        for release in self._releases.loaded:
            keep_up(release.search, release.items, release.release_id)
        if self._releases.loaded:
            self.at = at

    def age_s(self) -> float:
        return float("nan") if self.at is None else (self._clock() - self.at) / 1000


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
