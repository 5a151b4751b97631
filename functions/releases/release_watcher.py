"""Which releases this worker serves: follows the allocation, and switches only to what has loaded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from functions.releases.item_follower import ItemFollower
from functions.releases.loaded_release import LoadedRelease
from shared.errors import InfrastructureFault, ReleaseUnavailable
from shared.ports import Allocation, ReleaseStore
from shared.releases.allocation import allocated_release

log = logging.getLogger(__name__)

NO_RELEASE: Final = (
    "no release is published yet: run the nightly job (python -m batch.run_nightly --data DIR), then ask again"
)
RETRY_PAUSE_S: Final = 5.0


@dataclass(frozen=True)
class _Serving:
    """What is served: swapped whole, so that a request never sees half a switch."""

    allocation: Allocation
    releases: Mapping[str, LoadedRelease]
    asked: Allocation


@dataclass
class _Failure:
    text: str
    retry_at_s: float


@dataclass
class ReleaseWatcher:
    """A dict of loaded releases by id, and the allocation that chooses among them.

    A new allocation is taken when every release it names has loaded; until then the one that works stays. Only a
    worker that serves nothing yet begins with those that could be loaded.
    """

    store: ReleaseStore
    load: Callable[[str], LoadedRelease]
    follower: ItemFollower
    seconds: Callable[[], float]
    on_load: Callable[[str, bool], None] = lambda _release_id, _loaded: None
    _serving: _Serving | None = None
    _failures: dict[str, _Failure] = field(default_factory=dict)
    _refreshing: threading.Lock = field(default_factory=threading.Lock)
    _known: list[LoadedRelease] = field(default_factory=list)
    _aside: dict[str, LoadedRelease] = field(default_factory=dict)

    def refresh(self) -> None:
        """Look at the allocation and follow it. Raises InfrastructureFault when it cannot be read."""
        with self._refreshing:
            asked = self.store.allocation()
            serving = self._serving
            if asked is None or (serving is not None and serving.asked == asked and serving.allocation == asked):
                return
            held = self._aside | (dict(serving.releases) if serving is not None else {})
            wanted = [release_id for release_id, weight in asked.releases if weight > 0]
            found = {one: loaded for one in wanted if (loaded := held.get(one) or self._try_to_load(one)) is not None}
            if len(found) == len(wanted):
                self._switch(asked, asked, found)
            elif found and (serving is None or serving.asked != serving.allocation):
                usable = replace(asked, releases=tuple(pair for pair in asked.releases if pair[0] in found))
                self._switch(usable, asked, found)
            else:
                self._keep_aside(found)

    def release_for(self, user_id: str) -> LoadedRelease:
        """The release this user sees. Raises ReleaseUnavailable before the first one has loaded."""
        serving = self._current()
        return serving.releases[allocated_release(serving.allocation, user_id)]

    def main_release(self) -> LoadedRelease:
        """The release most users see: answers what is asked without a user. Raises ReleaseUnavailable."""
        serving = self._current()
        release_id, _ = max(serving.allocation.releases, key=lambda pair: pair[1])
        return serving.releases[release_id]

    @property
    def loaded(self) -> tuple[LoadedRelease, ...]:
        """The releases that are served, the heaviest first."""
        if self._serving is None:
            return ()
        weights = dict(self._serving.allocation.releases)
        return tuple(sorted(self._serving.releases.values(), key=lambda one: -weights.get(one.release_id, 0.0)))

    @property
    def failures(self) -> dict[str, str]:
        """Releases that were asked for and could not be loaded, with the reason."""
        return {release_id: failure.text for release_id, failure in self._failures.items()}

    def _current(self) -> _Serving:
        if self._serving is None:
            reasons = "; ".join(f"{release_id}: {text}" for release_id, text in self.failures.items())
            raise ReleaseUnavailable(f"no release could be loaded ({reasons})" if reasons else NO_RELEASE)
        return self._serving

    def _try_to_load(self, release_id: str) -> LoadedRelease | None:
        failure = self._failures.get(release_id)
        if failure is not None and self.seconds() < failure.retry_at_s:
            return None
        try:
            loaded = self.load(release_id)
        except InfrastructureFault as error:
            self._note_failure(release_id, str(error))
            raise
        except Exception as error:
            log.exception("release %s cannot be loaded", release_id)
            self._note_failure(release_id, str(error))
            return None
        self._failures.pop(release_id, None)
        self.on_load(release_id, True)  # noqa: FBT003 - (release, loaded?) of a plain callback
        log.info("release %s is loaded", release_id)
        return loaded

    def _note_failure(self, release_id: str, text: str) -> None:
        self._failures[release_id] = _Failure(text, self.seconds() + RETRY_PAUSE_S)
        self.on_load(release_id, False)  # noqa: FBT003 - (release, loaded?) of a plain callback

    def _switch(self, usable: Allocation, asked: Allocation, releases: dict[str, LoadedRelease]) -> None:
        """Serve these; the ones before stay on the shelf for requests under way until the next switch."""
        before = self._serving
        self._serving = _Serving(usable, releases, asked)
        wanted = {release_id for release_id, _ in asked.releases}
        self._failures = {one: failure for one, failure in self._failures.items() if one in wanted}
        kept = list(releases.values()) + (list(before.releases.values()) if before is not None else [])
        self._forget_all_but(kept)
        log.info("allocation %d: %s", usable.version, ", ".join(releases))

    def _keep_aside(self, found: dict[str, LoadedRelease]) -> None:
        """What has loaded waits for the others of its allocation; it is not loaded again."""
        self._known += [release for release_id, release in found.items() if release_id not in self._aside]
        self._aside = found

    def _forget_all_but(self, kept: list[LoadedRelease]) -> None:
        names = {release.release_id for release in kept}
        for release in self._known:
            if release.release_id not in names:
                release.items.drop(release.release_id)
        self._known = kept
        self._aside = {}
        self.follower.keep_only([release.items for release in kept])
