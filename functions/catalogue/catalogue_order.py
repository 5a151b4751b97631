"""The orders in which the catalogue is browsed, and the cursor that says where a walk through one of them stands."""

from __future__ import annotations

import base64
import binascii
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.candidates.trends import TREND_SPAN
from shared.errors import InvalidCursor
from shared.features.aggregations import NEVER
from shared.features.definitions import decayed
from shared.features.items import ItemTable
from shared.features.state import EMPTY_AT
from shared.features.views import ACTION_WEIGHT, Rows
from shared.recommend import Shelf

Keys = NDArray[np.float64]
POPULARITY_DIGITS: Final = 6
"""So many digits of log2 are told apart: two workers may differ in the last bits of a sum."""


class CatalogueSort(StrEnum):
    """What comes first."""

    ID = "id"
    NEWEST = "newest"
    PRICE = "price"
    PRICE_DOWN = "-price"
    POPULARITY = "popularity"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last item of a page: the next page is what comes after (key, item_id) in this order."""

    sort: CatalogueSort
    key: float
    item_id: str

    def encode(self) -> str:
        """URL-safe text."""
        packed = msgspec.msgpack.encode((self.sort.value, self.key, self.item_id))
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """The inverse of `encode`; raises InvalidCursor."""
        try:
            packed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            sort, key, item_id = _DECODER.decode(packed)
            found = cls(CatalogueSort(sort), key, item_id)
        except (ValueError, binascii.Error, msgspec.DecodeError) as error:
            raise InvalidCursor("the cursor is none of ours; begin again without one") from error
        if math.isnan(found.key) or found.encode() != text.rstrip("="):
            raise InvalidCursor("the cursor is none of ours; begin again without one")
        return found


_DECODER: Final = msgspec.msgpack.Decoder(tuple[str, float, str])


@dataclass(frozen=True, slots=True)
class Order:
    """A shelf in one order: int64[n] shelf indexes and float64[n] keys ascending; equal keys in order of `item_ids`.

    `item_ids` are those of the shelf, by index.
    """

    indexes: NDArray[np.int64]
    keys: Keys
    item_ids: Sequence[str]

    def after(self, cursor: Cursor) -> int:
        """The place from which on everything comes after the cursor, wherever its item stands now."""
        low = int(np.searchsorted(self.keys, cursor.key, "left"))
        high = int(np.searchsorted(self.keys, cursor.key, "right"))
        ids = self.item_ids
        return bisect_right(self.indexes, cursor.item_id, low, high, key=lambda index: ids[index])


def keys_of(sort: CatalogueSort, table: ItemTable, rows: Rows) -> Keys:
    """float64[n], the smallest first.

    A key depends on its own item alone, and only on what changes when the item does: popularity is the logarithm of
    the decayed sum at a fixed instant, not of what is left of it now. So an item that does not change keeps its place
    among those that do not.
    """
    if sort is CatalogueSort.NEWEST:
        arrived_at = table.arrived_at[rows]
        return np.where(arrived_at == NEVER, np.inf, -arrived_at.astype(np.float64))
    if sort is CatalogueSort.PRICE:
        return table.price_cents[rows].astype(np.float64)
    if sort is CatalogueSort.PRICE_DOWN:
        return -table.price_cents[rows]
    if sort is CatalogueSort.POPULARITY:
        return _popularity(table, rows)
    return np.zeros(len(rows))


def order_of(sort: CatalogueSort, shelf: Shelf, item_ids: Sequence[str], by_id: NDArray[np.int64]) -> Order:
    """The shelf in an order; `item_ids` are those of the shelf, `by_id` int64[n] its indexes in the order of them."""
    keys = keys_of(sort, shelf.table, shelf.rows[by_id])
    order = np.argsort(keys, kind="stable")
    return Order(by_id[order], keys[order], item_ids)


def _popularity(table: ItemTable, rows: Rows) -> Keys:
    counters = table.counters
    slots = [counters.layout.slot[decayed(kind, TREND_SPAN)] for kind in ACTION_WEIGHT]
    half_life_ms = float(counters.layout.half_lives_ms[slots[0]])
    sums = counters.decayed[np.ix_(rows, slots)]
    value = np.zeros(len(rows))
    for column, weight in enumerate(ACTION_WEIGHT.values()):
        value += sums[:, column] * weight
    newest_at = counters.newest_at[rows]
    began = np.where(newest_at == EMPTY_AT, 0, newest_at) / half_life_ms
    keys = np.full(len(rows), np.inf)
    acted = value > 0
    keys[acted] = -np.round(np.log2(value[acted]) + began[acted], POPULARITY_DIGITS)
    return keys
