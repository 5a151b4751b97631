"""Giving all traffic to a release, and taking it back: the allocation moves, retired lists expire later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shared.adapters.redis_releases import ITEM_KINDS, USERS, RedisReleaseStore
from shared.errors import AllocationMoved, MarkMoved, ReleaseUnavailable, UnusableRelease
from shared.ports import Allocation, BlobStore
from shared.releases.allocation import whole
from shared.releases.bundle import load_bundle
from shared.releases.manifest import ReleaseManifest

RETIRED_TTL_MS: Final = 7 * 24 * 3600 * 1000
"""How long lists outlive their release: workers that have not switched yet, and a person who wants it back."""
MOST_REMEMBERED: Final = 50


@dataclass(frozen=True, slots=True)
class Change:
    """What moved: the release that had the traffic (None: none had), the one that has it, and the ones retired."""

    before: str | None
    after: str
    version: int
    retired: tuple[str, ...]


def check_usable(store: RedisReleaseStore, blobs: BlobStore, release_id: str) -> ReleaseManifest:
    """The manifest of a release whose files are whole and whose lists are complete.

    Raises:
        UnusableRelease: something is missing; the message says what.
    """
    try:
        manifest = load_bundle(blobs, release_id).manifest
    except ReleaseUnavailable as error:
        raise UnusableRelease(str(error)) from error
    wanted = {USERS: manifest.users_count, **dict.fromkeys(ITEM_KINDS, manifest.items_count)}
    found = store.count_lists(release_id)
    lacking = [f"{found[kind]:,} of {count:,} {kind} lists" for kind, count in wanted.items() if found[kind] != count]
    if lacking:
        raise UnusableRelease(f"release {release_id}: Redis holds only {', '.join(lacking)}; publish it again")
    return manifest


def active_release(store: RedisReleaseStore) -> str | None:
    """The release with the most weight, or None before the first publish."""
    return _heaviest(store.allocation())


def _heaviest(allocation: Allocation | None) -> str | None:
    return None if allocation is None else max(allocation.releases, key=lambda pair: pair[1])[0]


def earlier_releases(store: RedisReleaseStore) -> list[str]:
    """What had all traffic before the active release, newest first."""
    return _earlier(store.published(), active_release(store))


def _earlier(history: list[str], active: str | None) -> list[str]:
    below = history[history.index(active) + 1 :] if active in history else history
    return [release_id for release_id in below if release_id != active]


def activate(
    store: RedisReleaseStore,
    blobs: BlobStore,
    release_id: str,
    promote: Callable[[str], object] = lambda _release_id: None,
    expected_version: int | None = None,
) -> Change:
    """Give a usable release all traffic.

    The allocation is the one write that readers follow; `promote` (MLflow's alias) and the retirement of lists come
    after it and are done again when the command is. The release before it keeps its lists for a rollback.
    `expected_version` is the allocation's version that the caller looked at (0: there was none).
    Raises UnusableRelease when it may not serve, AllocationMoved when someone else moved the allocation meanwhile.
    """
    held = _held(store, expected_version)
    before = _heaviest(held)
    history = store.published()
    store.keep(release_id)
    check_usable(store, blobs, release_id)
    _allocate(store, release_id, held)
    rest = [before, *history] if before is not None else history
    return _settle(store, release_id, before, [release_id, *(one for one in rest if one != release_id)], promote)


def roll_back(
    store: RedisReleaseStore,
    blobs: BlobStore,
    promote: Callable[[str], object] = lambda _release_id: None,
    expected_version: int | None = None,
) -> Change:
    """Give all traffic to the release that had it before the active one.

    Raises UnusableRelease when there is none, or its files or lists are not whole; AllocationMoved as `activate`.
    """
    held = _held(store, expected_version)
    before = _heaviest(held)
    earlier = _earlier(store.published(), before)
    if not earlier:
        raise UnusableRelease("no release was active before this one: there is nothing to go back to")
    store.keep(earlier[0])
    check_usable(store, blobs, earlier[0])
    _allocate(store, earlier[0], held)
    return _settle(store, earlier[0], before, earlier, promote)


def _held(store: RedisReleaseStore, expected_version: int | None) -> Allocation | None:
    held = store.allocation()
    version = 0 if held is None else held.version
    if expected_version is not None and version != expected_version:
        raise AllocationMoved(
            f"the allocation has version {version}, not {expected_version}: someone moved it; look again"
        )
    return held


def _allocate(store: RedisReleaseStore, release_id: str, held: Allocation | None) -> None:
    """Move from the allocation that the decision was made on, or not at all."""
    if held is not None and held.releases == ((release_id, 1.0),):
        return
    try:
        store.set_allocation(whole(release_id, held))
    except MarkMoved as error:
        raise AllocationMoved("someone else moved the allocation meanwhile; look again and decide anew") from error


def _settle(
    store: RedisReleaseStore,
    release_id: str,
    before: str | None,
    history: list[str],
    promote: Callable[[str], object],
) -> Change:
    distinct = list(dict.fromkeys(history))[:MOST_REMEMBERED]
    store.set_published(distinct)
    promote(release_id)
    # Again, now that everybody knows it serves: someone may have retired it between the first keeping and the move.
    store.keep(release_id)
    held = store.allocation()
    serving = _serving(held)
    retired = []
    for other, expiring in store.with_lists().items():
        if other not in serving and other not in distinct[:2] and other != before and not expiring:
            store.retire(other, RETIRED_TTL_MS)
            retired.append(other)
    for other in _serving(store.allocation()).intersection(retired):
        # It was given traffic while its lists were being retired here.
        store.keep(other)
        retired.remove(other)
    return Change(before, release_id, 0 if held is None else held.version, tuple(retired))


def _serving(allocation: Allocation | None) -> set[str]:
    return set() if allocation is None else {one for one, weight in allocation.releases if weight > 0}
