"""What answers are made from: the releases a worker serves, their items and search, and its way to shoppers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from functions.outside import Outside
from functions.pages.page_reader import PageReader
from functions.preferences.preference_keeper import PreferenceKeeper
from functions.releases.item_follower import ItemFollower
from functions.releases.loaded_release import ReleaseLoader
from functions.releases.release_watcher import ReleaseWatcher
from functions.search.release_search import keep_up
from shared.adapters.redis_overlay import RedisOverlays
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_shards import RedisShardReader
from shared.features.definitions import STATE_VERSION


class Followed:
    """Following items and releases, with the instant at which the items were last up to date."""

    def __init__(self, follower: ItemFollower, releases: ReleaseWatcher, clock: Callable[[], int]) -> None:
        """`clock` tells epoch ms."""
        self._follower = follower
        self._releases = releases
        self._clock = clock
        self.at: int | None = None

    def refresh(self) -> None:
        """Look at which releases are live; the first one's items are followed at once."""
        self._releases.refresh()
        if self.at is None and self._releases.loaded:
            self.follow()

    def follow(self) -> None:
        """Take in what changed in the items, search included."""
        at = self._clock()
        self._follower.follow()
        for release in self._releases.loaded:
            keep_up(release.search, release.items, release.release_id)
        if self._releases.loaded:
            self.at = at

    def age_s(self) -> float:
        """Since the items were last up to date; NaN before they ever were."""
        return float("nan") if self.at is None else (self._clock() - self.at) / 1000


@dataclass(frozen=True)
class Serving:
    """Shared by everything that answers."""

    releases: ReleaseWatcher
    follower: ItemFollower
    followed: Followed
    reader: PageReader
    keeper: PreferenceKeeper


def open_serving(outside: Outside) -> Serving:
    """Items are followed with the fold's patience, shoppers are read with the page's."""
    settings, metrics = outside.settings, outside.metrics
    secret = settings.user_key_secret
    lists = RedisReleaseStore(outside.page_client)
    follower = ItemFollower(RedisShardReader(outside.fold_client, secret, STATE_VERSION))
    releases = ReleaseWatcher(
        store=lists,
        load=ReleaseLoader(outside.blobs, lists, follower, outside.live).load,
        follower=follower,
        seconds=outside.seconds,
        on_load=lambda _id, loaded: metrics.releases.labels("loaded" if loaded else "failed").inc(),
    )
    followed = Followed(follower, releases, outside.clock)
    metrics.age_gauge("recommndr_items_age_seconds", "Since the items were last followed", followed.age_s)
    reader = PageReader(outside.page_client, RedisShardReader(outside.page_client, secret, STATE_VERSION), secret)
    keeper = PreferenceKeeper(
        releases=releases,
        reader=reader,
        overlays=RedisOverlays(outside.page_client, secret),
        circuit=outside.state_circuit,
        user_secret=secret,
        clock=outside.clock,
        seconds=outside.seconds,
    )
    return Serving(releases, follower, followed, reader, keeper)
