"""Keeps the event fold at the state versions that releases need, and tells which of them are in trouble."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from functions.metrics import Metrics
from shared.adapters.redis_versions import StateVersions
from shared.errors import InfrastructureFault
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.processor import OnBroken, alarm
from shared.ingest.state_versions import NeededVersions, PublishedReleases, needed_versions
from shared.ports import BlobStore
from shared.releases.manifest import ReleaseManifest, read_manifest

log = logging.getLogger(__name__)


class VersionKeeper:
    """Reads what is published every few seconds, outside the fold, and hands the fold its versions."""

    def __init__(
        self,
        releases: PublishedReleases,
        states: StateVersions,
        blobs: BlobStore,
        keep: Callable[[Sequence[AnyVersion]], None],
    ) -> None:
        """`keep` is told the versions to fold, the one that decides first."""
        self._releases = releases
        self._states = states
        self._blobs = blobs
        self._keep = keep
        self._manifests: dict[str, ReleaseManifest] = {}
        self.needed: NeededVersions | None = None
        self.broken: Mapping[str, str] = {}

    def refresh(self) -> None:
        """Look at what is published and broken, and keep the fold at it. Raises InfrastructureFault."""
        needed = needed_versions(self._releases, self._manifest)
        broken = self._states.broken()
        if self.needed is None or needed.beyond != self.needed.beyond:
            for release_id, reason in needed.beyond.items():
                log.error("ALARM the state of release %s is folded no longer: %s", release_id, reason)
        self._manifests = {name: held for name, held in self._manifests.items() if name in needed.releases}
        self.needed, self.broken = needed, broken
        sound = [version for version in needed.fold if version.name not in broken]
        if sound:
            self._keep(sound)

    def ensure(self) -> None:
        """Before something is folded: what is needed was read once, and not all of it is broken.

        Raises:
            InfrastructureFault: it cannot be read, or no version is left.
        """
        if self.needed is None:
            self.refresh()
        assert self.needed is not None, "refresh raises or sets it"
        if all(version.name in self.broken for version in self.needed.fold):
            self.refresh()
            if all(version.name in self.broken for version in self.needed.fold):
                names = ", ".join(self.broken)
                raise InfrastructureFault(
                    f"every state version in use is broken ({names}): deploy code that can fold, then clear and load "
                    "one: python -m local.state_versions clear VERSION"
                )

    def _manifest(self, release_id: str) -> ReleaseManifest:
        held = self._manifests.get(release_id)
        if held is None:
            held = self._manifests[release_id] = read_manifest(self._blobs, release_id)
        return held


def recording(states: StateVersions, metrics: Metrics) -> OnBroken:
    """What the fold calls when it gives a version up: every worker must know before anything else is committed."""

    def on_broken(version: str, reason: str) -> None:
        states.mark_broken(version, reason)
        metrics.broken_versions.inc()
        alarm(version, reason)

    return on_broken
