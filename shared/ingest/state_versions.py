"""State versions: those this code folds and those that releases need; here the processor meets the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.errors import CorruptRecord, ReleaseUnavailable
from shared.features.aggregations import Layout
from shared.features.definitions import ITEM_LAYOUT, STATE_VERSION, USER_LAYOUT, version_name
from shared.features.fold import ItemCounters, fold_item, fold_user
from shared.features.shard import UserShard
from shared.features.state import EMPTY_AT
from shared.ingest.fold_chunk import AnyVersion, StateVersion
from shared.ports import Allocation
from shared.releases.manifest import ReleaseManifest

StateLayouts = Mapping[str, Sequence[Mapping[str, Any]]]
"""The layouts of a state version as a release manifest keeps them: entity ("user", "item") to described slots."""

ROLLBACK_DEPTH = 2
"""Of the published releases: the active one and the one a rollback goes to."""


def version_of(name: str, user_layout: Layout, item_layout: Layout) -> StateVersion[UserShard, ItemCounters]:
    """The fold of a state version that keeps these layouts."""

    def decode_user(data: bytes | None) -> UserShard:
        return UserShard.empty(user_layout) if data is None else UserShard.decode(data, user_layout)

    def decode_item(data: bytes | None) -> ItemCounters:
        return ItemCounters.empty(item_layout) if data is None else ItemCounters.decode(data, item_layout)

    return StateVersion(
        name=name,
        decode_user=decode_user,
        encode_user=UserShard.encode,
        user_expires=_user_expires,
        fold_user=fold_user,
        decode_item=decode_item,
        encode_item=ItemCounters.encode,
        fold_item=fold_item,
    )


def _user_expires(shard: UserShard) -> bool:
    return shard.preferences_version is None and shard.erased_at == EMPTY_AT  # these two outlive idleness


CURRENT_VERSION = version_of(STATE_VERSION, USER_LAYOUT, ITEM_LAYOUT)
"""The version of the features this code declares: the one that it serves, and that the night builds releases for."""

CURRENT_LAYOUTS: StateLayouts = {"user": USER_LAYOUT.describe(), "item": ITEM_LAYOUT.describe()}


def described_version(name: str, layouts: StateLayouts) -> AnyVersion:
    """The state version that a release describes.

    Raises:
        CorruptRecord: this code cannot fold it: an aggregation it does not know, or another format of the bytes.
    """
    if name == CURRENT_VERSION.name:
        return CURRENT_VERSION
    user, item = (Layout.from_description(layouts.get(entity, ())) for entity in ("user", "item"))
    made = version_name(user, item)
    if made != name:
        raise CorruptRecord(
            f"state version {name} keeps its bytes in another format: folded by this code it would be {made}"
        )
    return version_of(name, user, item)


class PublishedReleases(Protocol):
    """What tells which releases may serve."""

    def allocation(self) -> Allocation | None:
        """Who has traffic now."""
        ...

    def published(self) -> list[str]:
        """Who was given all traffic, newest first."""
        ...


@dataclass(frozen=True, slots=True)
class NeededVersions:
    """The state versions that releases need.

    `fold` is in the order in which they decide: the version of the oldest release first, this code's own in any case.
    `releases` are those looked at, each with its version (None: its manifest cannot be read); `allocated` are the
    versions of releases with traffic; `beyond` says of a release why its version is not among `fold`.
    """

    fold: tuple[AnyVersion, ...] = (CURRENT_VERSION,)
    releases: Mapping[str, str | None] = field(default_factory=dict)
    allocated: frozenset[str] = frozenset()
    beyond: Mapping[str, str] = field(default_factory=dict)


def needed_versions(releases: PublishedReleases, manifest_of: Callable[[str], ReleaseManifest]) -> NeededVersions:
    """What every release that has traffic, or would have it after a rollback, needs, and what this code needs itself.

    Raises InfrastructureFault when what is published cannot be read.
    """
    allocation = releases.allocation()
    serving = [name for name, weight in allocation.releases if weight > 0] if allocation is not None else []
    found: dict[str, str | None] = dict.fromkeys([*serving, *releases.published()[:ROLLBACK_DEPTH]])
    manifests: list[ReleaseManifest] = []
    beyond: dict[str, str] = {}
    for release_id in found:
        try:
            manifests.append(manifest_of(release_id))
        except ReleaseUnavailable as error:
            beyond[release_id] = str(error)
    versions: dict[str, AnyVersion] = {}
    for manifest in sorted(manifests, key=lambda one: (one.created_at, one.release_id)):
        name = found[manifest.release_id] = manifest.state_version
        try:
            versions.setdefault(name, described_version(name, manifest.state_layouts or {}))
        except CorruptRecord as error:
            beyond[manifest.release_id] = str(error)
    versions.setdefault(CURRENT_VERSION.name, CURRENT_VERSION)
    allocated = frozenset(one.state_version for one in manifests if one.release_id in serving)
    return NeededVersions(tuple(versions.values()), found, allocated, beyond)
