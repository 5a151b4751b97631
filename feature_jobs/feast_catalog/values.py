"""Values of declared features at one instant, from an item table and users' states: what both stores stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

from shared.errors import ConfigurationError
from shared.events import ItemId
from shared.features.declaration import Feature
from shared.features.definitions import FEATURES, LISTS, USER_LAYOUT, Retrieval
from shared.features.items import ItemTable
from shared.features.shard import Shopper
from shared.features.state import EntityState
from shared.features.vector import Matrix, assemble
from shared.features.views import PairView, RequestView, RetrievalBlock, Rows, UserView, user_lists
from shared.recommend import item_rows

Key = tuple[str | None, str | None]
"""(user id, item id); None where a view has no such key."""


@dataclass(frozen=True)
class Moment:
    """Everything known at `as_of` (epoch ms): the items, any user's state, and the shop's time zone."""

    as_of: int
    table: ItemTable
    shopper_of: Callable[[str, int], Shopper]
    time_zone: ZoneInfo

    def values(self, features: Sequence[Feature], keys: Sequence[Key]) -> Matrix:
        """float32[len(keys), len(features)] of user, item and pair features.

        Who or what nobody has heard of has the values that the ranker would read: zero counts and the defaults.
        """
        matrix = np.empty((len(keys), len(features)), dtype=np.float32)
        places: dict[str | None, list[int]] = {}
        for place, (user_id, _) in enumerate(keys):
            places.setdefault(user_id, []).append(place)
        for user_id, its in places.items():
            state = self._state_of(user_id)
            items = [ItemId(item) for place in its if (item := keys[place][1]) is not None]
            # Keys without an item ask for features of the user alone: any row of the table serves.
            rows = item_rows(self.table, items) if items else np.zeros(len(its), dtype=np.int64)
            pair = _pair(self.table, state, rows, self.as_of, self.time_zone)
            silent = RetrievalBlock.silent(len(its), len(Retrieval))
            matrix[its] = assemble(pair, silent, RequestView(self.as_of, self.time_zone), tuple(features))
        return matrix

    def _state_of(self, user_id: str | None) -> EntityState:
        return EntityState.empty(USER_LAYOUT) if user_id is None else self.shopper_of(user_id, self.as_of).state


def values_of_request(
    features: Sequence[Feature],
    rows: int,
    *,
    retrieval: RetrievalBlock | None = None,
    request: RequestView | None = None,
) -> Matrix:
    """float32[rows, len(features)] of retrieval or request features, which need neither user nor item."""
    nobody, utc = EntityState.empty(USER_LAYOUT), ZoneInfo("UTC")
    pair = _pair(_no_items(), nobody, np.zeros(rows, dtype=np.int64), 0, utc)
    said = retrieval or RetrievalBlock.silent(rows, len(Retrieval))
    return assemble(pair, said, request or RequestView(0, utc), tuple(features))


def features_named(names: Iterable[str], features: Sequence[Feature] = FEATURES) -> tuple[Feature, ...]:
    """The declarations of these names, in their order. Raises ConfigurationError for one that is not declared."""
    declared = {one.name: one for one in features}
    try:
        return tuple(declared[name] for name in names)
    except KeyError as error:
        raise ConfigurationError(
            f"no feature {error} is declared: the registry is older than the code; "
            "run python -m feature_jobs.feast_catalog --apply"
        ) from error


@cache
def _no_items() -> ItemTable:
    return ItemTable()


def _pair(table: ItemTable, state: EntityState, rows: Rows, as_of: int, time_zone: ZoneInfo) -> PairView:
    user = UserView(state, as_of, user_lists(state, table.row_of, LISTS), time_zone)
    return PairView(user, table.block(rows, as_of), table.category, table.brand)
