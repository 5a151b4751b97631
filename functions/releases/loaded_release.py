"""A release in a worker: fetched, verified, warmed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from functions.releases.item_follower import FollowedItems, ItemFollower
from functions.search.release_search import keep_up, open_search
from shared.adapters.redis_releases import RedisReleaseStore
from shared.candidates.als import ItemFactors
from shared.errors import ReleaseUnavailable, SchemaMismatch
from shared.events import EventSource, ItemId, id_hash
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.ingest.lake import read_manifest
from shared.ingest.partitioning import with_live
from shared.ports import BlobStore
from shared.ranking.calibration import Calibration
from shared.ranking.ranker_parts import RankerParts
from shared.ranking.scorer import OnnxScorer
from shared.recommend import Model, default_sources
from shared.releases.bundle import Bundle, load_bundle
from shared.releases.manifest import ReleaseManifest
from shared.search.live import LiveIndex


@dataclass(frozen=True)
class LoadedRelease:
    """What a page needs of one release. `index_of` maps item hashes to the release's dense index.

    `ranker_parts` explain the ranker's scores, `calibration` says how likely they are hits; releases that older code
    built, or of another kind of ranker, have neither.
    """

    manifest: ReleaseManifest
    model: Model
    item_ids: tuple[ItemId, ...]
    index_of: Mapping[int, int]
    user_buckets: int
    items: FollowedItems
    search: LiveIndex
    ranker_parts: RankerParts | None = None
    calibration: Calibration | None = None

    @property
    def release_id(self) -> str:
        """Its name."""
        return self.manifest.release_id


class ReleaseLoader:
    """Loads releases from the blob store, with their items followed."""

    def __init__(self, blobs: BlobStore, lists: RedisReleaseStore, follower: ItemFollower, live: EventSource) -> None:
        """`live` is the stream this worker's API appends to: pages read it even before any night has seen it."""
        self._blobs = blobs
        self._lists = lists
        self._follower = follower
        self._live = live

    def load(self, release_id: str) -> LoadedRelease:
        """Fetch, verify, follow its items, warm up.

        Raises:
            ReleaseUnavailable: a file is missing or altered, or this code folds another state version.
            SchemaMismatch: the ranker was trained on other features.
            InfrastructureFault: the blob store or Redis does not answer.
        """
        bundle = load_bundle(self._blobs, release_id)
        manifest = bundle.manifest
        _check_versions(manifest)
        scorer = OnnxScorer(bundle.ranker)
        if scorer.feature_count != len(SCHEMA.names):
            raise SchemaMismatch(f"release {release_id} has a ranker of {scorer.feature_count} columns")
        scorer.warm_up()
        item_ids = tuple(entry.item_id for entry in bundle.entries)
        items = self._follower.items_of(self._sources(manifest))
        items.adopt(release_id, item_ids)
        search = open_search(bundle)
        keep_up(search, items, release_id)
        return LoadedRelease(
            manifest=manifest,
            model=_model(bundle, scorer),
            item_ids=item_ids,
            index_of={id_hash(item_id): index for index, item_id in enumerate(item_ids)},
            user_buckets=self._lists.user_buckets(release_id),
            items=items,
            search=search,
            ranker_parts=_ranker_parts(bundle),
            calibration=None if bundle.calibration is None else Calibration.decode(bundle.calibration),
        )

    def _sources(self, manifest: ReleaseManifest) -> tuple[EventSource, ...]:
        """What the release reads; the lake knows of changes of the partition count since the release was built."""
        sources = with_live(manifest.sources, self._live)
        lake = read_manifest(self._blobs)
        held = None if lake is None else lake.source(self._live.name)
        if held is None:
            return sources
        known = with_live([held.event_source()], self._live)
        return tuple(with_live([one], known[0])[0] if one.name == self._live.name else one for one in sources)


def _ranker_parts(bundle: Bundle) -> RankerParts | None:
    if bundle.trees is None:
        return None
    parts = RankerParts.decode(bundle.trees)
    if parts.features_count != len(SCHEMA.names):
        raise SchemaMismatch(
            f"release {bundle.manifest.release_id} explains scores of another schema than its ranker's"
        )
    return parts


def _model(bundle: Bundle, scorer: OnnxScorer) -> Model:
    factors = ItemFactors.from_params(bundle.factors, bundle.manifest.als)
    params = bundle.manifest.retrieval
    return Model(
        release_id=bundle.manifest.release_id,
        sources=default_sources(factors, params),
        scorer=scorer,
        time_zone=ZoneInfo(bundle.manifest.time_zone),
        bought_window_days=bundle.manifest.bought_window_days,
        params=params,
    )


def _check_versions(manifest: ReleaseManifest) -> None:
    if manifest.state_version != STATE_VERSION:
        raise ReleaseUnavailable(
            f"release {manifest.release_id} reads state version {manifest.state_version}, this code folds "
            f"{STATE_VERSION}; run the nightly job with this code"
        )
    if manifest.schema_digest != SCHEMA.digest or manifest.feature_names != SCHEMA.names:
        raise SchemaMismatch(
            f"release {manifest.release_id} was trained on feature schema {manifest.schema_digest}, this code makes "
            f"{SCHEMA.digest}; run the nightly job with this code"
        )
