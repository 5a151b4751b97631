"""What the shop knows of a user, in words and numbers that a person can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from functions.preferences.preference_keeper import PreferenceKeeper
from functions.releases.item_follower import Stock
from functions.releases.release_watcher import ReleaseWatcher
from shared.catalog import Product
from shared.errors import CorruptRecord, StateUnavailable
from shared.events import EventType, Preferences
from shared.features.definitions import LISTS, USER_FEATURES
from shared.features.views import UserView, user_lists

MOST_HISTORY: Final = 50
MOST_CATEGORIES: Final = 10


@dataclass(frozen=True, slots=True)
class PastAction:
    """One thing she did; `product` is None for an item the catalogue does not describe."""

    event_type: EventType
    at: int
    product: Product | None


@dataclass(frozen=True, slots=True)
class Profile:
    """One user at `as_of` (epoch ms): features by name, newest actions first, favourite categories by share."""

    release_id: str
    as_of: int
    known: bool
    features: dict[str, float]
    history: list[PastAction]
    top_categories: list[tuple[str, float]]
    preferences: Preferences | None
    visibility: dict[tuple[str, int], int]


class ProfileReader:
    """Reads one user's state and puts names to it."""

    def __init__(self, releases: ReleaseWatcher, keeper: PreferenceKeeper) -> None:
        self._releases = releases
        self._keeper = keeper

    def profile(self, user_id: str) -> Profile:
        """The profile; of a user never seen, an empty one.

        Raises:
            ReleaseUnavailable: nothing has been published.
            StateUnavailable: the state cannot be read now.
        """
        release = self._releases.release_for(user_id)
        try:
            seen = self._keeper.read(user_id, release, record=False)
        except CorruptRecord as error:
            raise StateUnavailable(f"what is stored of this user cannot be read: {error}") from error
        shopper, as_of = seen.shopper, seen.as_of
        with release.items.reading(release.release_id) as stock:
            lists = user_lists(shopper.state, stock.shelf.table.row_of, LISTS)
            user = UserView(shopper.state, as_of, lists, release.model.time_zone)
            return Profile(
                release_id=release.release_id,
                as_of=as_of,
                known=shopper.known,
                features=_features(user),
                history=_history(user, stock),
                top_categories=_top_categories(user, stock),
                preferences=shopper.preferences,
                visibility=seen.read.visibility,
            )


def _features(user: UserView) -> dict[str, float]:
    values = {feature.name: float(np.asarray(feature.value(user))) for feature in USER_FEATURES}
    defaults = {feature.name: feature.default for feature in USER_FEATURES}
    return {name: defaults[name] if np.isnan(value) else value for name, value in values.items()}


def _history(user: UserView, stock: Stock) -> list[PastAction]:
    found = [
        (int(at), kind, int(row))
        for kind, (rows, instants) in user.lists.items()
        for row, at in zip(rows.tolist(), instants.tolist(), strict=True)
    ]
    found.sort(key=lambda action: (-action[0], action[1]))
    table = stock.shelf.table
    return [PastAction(kind, at, table.product_at(row) if row >= 0 else None) for at, kind, row in found[:MOST_HISTORY]]


def _top_categories(user: UserView, stock: Stock) -> list[tuple[str, float]]:
    """The leaf categories of what she did, by their share of her decayed taste."""
    products = stock.shelf.table.products
    taste: dict[str, float] = {}
    for row, weight in zip(user.actions.rows.tolist(), user.taste.tolist(), strict=True):
        category = products[row].category if row >= 0 else ""
        if category:
            taste[category] = taste.get(category, 0.0) + weight
    total = sum(taste.values())
    if total <= 0:
        return []
    ranked = sorted(taste.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(category, weight / total) for category, weight in ranked[:MOST_CATEGORIES]]
