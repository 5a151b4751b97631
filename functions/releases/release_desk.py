"""Releases as an operator sees and moves them: the same core as `python -m batch.releases`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.adapters.activation import Change, activate, active_release, check_usable, earlier_releases, roll_back
from shared.adapters.redis_releases import RedisReleaseStore
from shared.errors import ReleaseUnavailable, UnknownRelease
from shared.ports import BlobStore
from shared.releases.manifest import ReleaseManifest, read_manifest, release_ids

ACTIVE: Final = "active"
NEXT_ROLLBACK: Final = "rollback"


@dataclass(frozen=True, slots=True)
class ReleaseStanding:
    """One release: its manifest (None: it cannot be read, `fault` says why), its share of traffic, and its lists.

    `role` is "active", "rollback" (what a rollback would take) or "none"; `lists` is "kept", "expiring" or "none".
    """

    release_id: str
    manifest: ReleaseManifest | None
    fault: str | None
    weight: float
    role: str
    lists: str


@dataclass(frozen=True, slots=True)
class ReleaseOverview:
    """Every finished release, the newest name first, and the allocation's version (0: none yet)."""

    version: int
    releases: tuple[ReleaseStanding, ...]


class ReleaseDesk:
    """Looks at releases and moves the allocation; MLflow's alias is the night's and the command line's to move."""

    def __init__(self, store: RedisReleaseStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    def overview(self) -> ReleaseOverview:
        """All of them. Raises InfrastructureFault."""
        allocation = self._store.allocation()
        weights = {} if allocation is None else dict(allocation.releases)
        lists, earlier, active = self._store.with_lists(), earlier_releases(self._store), active_release(self._store)
        found = []
        for release_id in reversed(release_ids(self._blobs)):
            manifest, fault = self._manifest(release_id)
            role = ACTIVE if release_id == active else NEXT_ROLLBACK if earlier[:1] == [release_id] else "none"
            held = "none" if release_id not in lists else "expiring" if lists[release_id] else "kept"
            found.append(ReleaseStanding(release_id, manifest, fault, weights.get(release_id, 0.0), role, held))
        return ReleaseOverview(0 if allocation is None else allocation.version, tuple(found))

    def standing(self, release_id: str) -> tuple[ReleaseStanding, str | None]:
        """One of them, and why it may not be given traffic (None: it may). Raises UnknownRelease."""
        found = next((one for one in self.overview().releases if one.release_id == release_id), None)
        if found is None:
            raise UnknownRelease(f"there is no finished release {release_id!r}")
        try:
            check_usable(self._store, self._blobs, release_id)
        except ReleaseUnavailable as error:
            return found, str(error)
        return found, None

    def activate(self, release_id: str, expected_version: int | None) -> Change:
        """Give it all traffic. Raises UnknownRelease, UnusableRelease, AllocationMoved, InfrastructureFault."""
        if release_id not in release_ids(self._blobs):
            raise UnknownRelease(f"there is no finished release {release_id!r}")
        return activate(self._store, self._blobs, release_id, expected_version=expected_version)

    def roll_back(self, expected_version: int | None) -> Change:
        """Give all traffic to the one before. Raises UnusableRelease, AllocationMoved, InfrastructureFault."""
        return roll_back(self._store, self._blobs, expected_version=expected_version)

    def _manifest(self, release_id: str) -> tuple[ReleaseManifest | None, str | None]:
        try:
            return read_manifest(self._blobs, release_id), None
        except ReleaseUnavailable as error:
            return None, str(error)
