"""Readiness: what has to work before traffic may come, each checked and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from functions.releases.item_follower import FollowedItems
from functions.releases.release_watcher import NO_RELEASE, ReleaseWatcher
from functions.state_health import StateHealth
from shared.adapters.redis_connection import eviction_policy
from shared.adapters.redis_topology import sharing_nodes
from shared.errors import InfrastructureFault, RecommndrError
from shared.ingest.lake import LakeManifest, read_manifest
from shared.ingest.marks import REBUILD
from shared.ports import BlobStore, RetainedLog

STALE_AFTER_MS: Final = 10_000
LAKE_LOOK_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to work."""

    name: str
    ok: bool
    detail: str


class Readiness:
    """Runs the checks; each waits one timeout at most."""

    def __init__(
        self,
        *,
        state_client: Redis,
        broker: RetainedLog,
        releases: ReleaseWatcher,
        versions: StateHealth,
        blobs: BlobStore,
        clock: Callable[[], int],
        followed_at: Callable[[], int | None],
    ) -> None:
        """`followed_at` tells when (epoch ms) the items were last brought up to date."""
        self._state_client = state_client
        self._broker = broker
        self._releases = releases
        self._versions = versions
        self._blobs = blobs
        self._clock = clock
        self._followed_at = followed_at
        self._lake: tuple[int, LakeManifest | None] | None = None

    def checks(self) -> list[Check]:
        """Every check, in a fixed order."""
        return [
            self._feature_state(),
            self._eviction(),
            self._broker_log(),
            self._release(),
            self._items(),
            self._rebuilt(),
            self._state_versions(),
        ]

    def _feature_state(self) -> Check:
        try:
            nodes = sharing_nodes(self._state_client)
        except RedisError as error:
            return Check("feature_state", ok=False, detail=f"Redis does not answer: {type(error).__name__}")
        if nodes > 1:
            detail = (
                f"Redis is a cluster of {nodes} nodes, and clients must follow its keys from node to node: use one "
                "node, or a clustering policy with one endpoint (Azure: Enterprise)"
            )
            return Check("feature_state", ok=False, detail=detail)
        return Check("feature_state", ok=True, detail="Redis answers")

    def _eviction(self) -> Check:
        try:
            policy = eviction_policy(self._state_client)
        except RedisError:
            return Check("eviction_policy", ok=False, detail="Redis does not answer")
        if policy in {None, "noeviction"}:
            return Check("eviction_policy", ok=True, detail=policy or "the server does not tell")
        return Check("eviction_policy", ok=False, detail=f"{policy} would forget shoppers; set noeviction")

    def _broker_log(self) -> Check:
        try:
            self._broker.last_sequence(0)
        except InfrastructureFault:
            return Check("broker_log", ok=False, detail="the broker log does not answer")
        return Check("broker_log", ok=True, detail="the broker log answers")

    def _release(self) -> Check:
        failures = "".join(f"; {name} cannot be loaded: {text}" for name, text in self._releases.failures.items())
        loaded = [release.release_id for release in self._releases.loaded]
        if not loaded:
            return Check("release", ok=False, detail=NO_RELEASE + failures)
        return Check("release", ok=True, detail=", ".join(loaded) + failures)

    def _items(self) -> Check:
        at = self._followed_at()
        if at is None:
            return Check("items", ok=False, detail="the items were not read yet")
        age_ms = self._clock() - at
        if age_ms > STALE_AFTER_MS:
            return Check("items", ok=False, detail=f"the items were last followed {age_ms // 1000} s ago")
        return Check("items", ok=True, detail="the items are followed")

    def _rebuilt(self) -> Check:
        try:
            manifest = self._lake_manifest()
        except RecommndrError as error:
            return Check("state_rebuilt", ok=False, detail=str(error))
        if manifest is not None and manifest.marks and not self._releases.loaded:
            detail = f"the lake holds events and no release is loaded: if Redis was emptied, run {REBUILD}"
            return Check("state_rebuilt", ok=False, detail=detail)
        missing = sorted({part for one in self._releases.loaded for part in _unmarked(one.items, manifest)})
        if missing:
            detail = f"the lake holds events of {', '.join(missing)} and the state none: run {REBUILD}"
            return Check("state_rebuilt", ok=False, detail=detail)
        return Check("state_rebuilt", ok=True, detail="every partition of the lake is in the state")

    def _state_versions(self) -> Check:
        try:
            ok, detail = self._versions.look()
        except InfrastructureFault as error:
            return Check("state_versions", ok=False, detail=str(error))
        return Check("state_versions", ok=ok, detail=detail)

    def _lake_manifest(self) -> LakeManifest | None:
        now = self._clock()
        if self._lake is None or not 0 <= now - self._lake[0] < LAKE_LOOK_MS:
            self._lake = (now, read_manifest(self._blobs))
        return self._lake[1]


def _unmarked(items: FollowedItems, manifest: LakeManifest | None) -> list[str]:
    if manifest is None:
        return []
    return [
        f"{source}/{partition}"
        for (source, partition), mark in items.marks.items()
        if mark is None and manifest.mark(source, partition) is not None
    ]
