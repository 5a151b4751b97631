"""All items as columns: counters merged over partitions, and the catalogue, one row an item for as long as it lives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.catalog import CatalogEntry, Product
from shared.events import BEHAVIOUR, Event, EventType, ItemId, effective_at, id_hash
from shared.features.aggregations import EXPIRES_AFTER_MS, NEVER, Floats, Ints, Layout, decay
from shared.features.definitions import ITEM_LAYOUT
from shared.features.state import EMPTY_AT
from shared.features.views import ItemBlock, Rows

MAX_DEPTH: Final = 10


class CounterColumns:
    """Decayed values (float64[n, D] at newest_at int64[n]) and counts (int64[n, C]) of n rows; grows by doubling."""

    def __init__(self, layout: Layout = ITEM_LAYOUT, capacity: int = 1024) -> None:
        """All rows empty."""
        self.layout = layout
        self.newest_at: Ints = np.full(capacity, EMPTY_AT, dtype=np.int64)
        self.last_enqueued_at: Ints = np.full(capacity, EMPTY_AT, dtype=np.int64)
        self.decayed: Floats = np.zeros((capacity, len(layout.decayed)))
        self.counts: Ints = np.zeros((capacity, len(layout.counts)), dtype=np.int64)

    def reserve(self, rows: int) -> None:
        """Make room for at least this many rows."""
        while len(self.newest_at) < rows:
            fresh = CounterColumns(self.layout, len(self.newest_at))
            for name in ("newest_at", "last_enqueued_at", "decayed", "counts"):
                setattr(self, name, np.concatenate([getattr(self, name), getattr(fresh, name)]))

    def add(self, row: int, event: Event, enqueued_at: int) -> None:
        """Fold one event into a row, exactly as `EntityState.add` does."""
        at = effective_at(event.occurred_at_ms, enqueued_at)
        newest_at, slots = int(self.newest_at[row]), self.layout.whole
        self.decayed[row] = slots.fold(self.decayed[row].tolist(), newest_at, event, at)
        self.newest_at[row] = max(newest_at, at)
        self.last_enqueued_at[row] = max(int(self.last_enqueued_at[row]), enqueued_at)
        for slot in slots.intakes[event.event_type].counted:
            self.counts[row, slot] += 1

    def load(self, rows: Rows, shards: Sequence[bytes]) -> None:
        """Replace rows by encoded counters (`ItemCounters.encode`), decoded in bulk."""
        if not len(rows):
            return
        table = np.frombuffer(b"".join(shards), dtype=counters_dtype(self.layout))
        for name in ("newest_at", "last_enqueued_at", "decayed", "counts"):
            getattr(self, name)[rows] = table[name]

    def decayed_at(self, rows: Rows, as_of: int) -> Floats:
        """float64[len(rows), D] at `as_of`, never before a row's newest folded time; idle rows are zero."""
        values = decay(self.decayed[rows], elapsed_ms(self.newest_at[rows], as_of), self.layout.half_lives_ms)
        values[self._idle(rows, as_of)] = 0.0
        return values

    def counts_at(self, rows: Rows, as_of: int) -> Ints:
        """int64[len(rows), C]; idle rows are zero."""
        counts = self.counts[rows]
        counts[self._idle(rows, as_of)] = 0
        return counts

    def _idle(self, rows: Rows, as_of: int) -> NDArray[np.bool_]:
        return np.asarray(np.maximum(self.last_enqueued_at[rows], 0) < as_of - EXPIRES_AFTER_MS)


def elapsed_ms(newest_at: Ints, until_at: Ints | int) -> Floats:
    """float64[n, 1]: from each row's newest folded time until an instant, at least 0; 0 for rows that are empty."""
    since = np.where(newest_at == EMPTY_AT, until_at, newest_at)
    return np.asarray(np.maximum(until_at - since, 0)[:, None].astype(np.float64))


def counters_dtype(layout: Layout) -> np.dtype[Any]:
    """The fixed record that `EntityState.encode` writes for a layout without lists and earliest instants."""
    if layout.lists or layout.earliest:
        raise ValueError("items keep only decayed sums and counts: their records must have a fixed size")
    return np.dtype(
        [
            ("seen", "u1"),
            ("newest_at", "<i8"),
            ("last_enqueued_at", "<i8"),
            ("decayed", "<f8", (len(layout.decayed),)),
            ("counts", "<i8", (len(layout.counts),)),
        ]
    )


class ItemTable:
    """Every item this process knows, by row; rows are given out once and never move.

    Either `fold` it (offline: one clean pass) or `load_part` it (online: encoded shards of each partition); a
    row's merged counters are the sum over parts in the order in which the parts were first seen.
    """

    def __init__(self) -> None:
        """No items."""
        self.row_of: dict[int, int] = {}
        self.products: list[Product] = []
        self.counters = CounterColumns()
        self.version = 0
        """Moves with every change."""
        self.products_version = 0
        """Moves with changes of products alone: counters leave it as it is."""
        self.newest_at = 0
        self._entries: list[CatalogEntry] = []
        self._parts: dict[tuple[str, int], CounterColumns] = {}
        self._codes: dict[str, int] = {}
        self._names: list[str] = []
        capacity = len(self.counters.newest_at)
        self.price_cents: Floats = np.zeros(capacity)
        self.stock: Floats = np.full(capacity, np.nan)
        self.available: NDArray[np.bool_] = np.zeros(capacity, dtype=np.bool_)
        self.described: NDArray[np.bool_] = np.zeros(capacity, dtype=np.bool_)
        self.product_versions: Ints = np.zeros(capacity, dtype=np.int64)
        self.arrived_at: Ints = np.full(capacity, NEVER, dtype=np.int64)
        self.category: Ints = np.full(capacity, -1, dtype=np.int64)
        self.brand: Ints = np.full(capacity, -1, dtype=np.int64)
        self.paths: Ints = np.full((capacity, MAX_DEPTH), -1, dtype=np.int64)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._entries)

    def row(self, item_hash: int) -> int:
        """The row of an item hash, made when new."""
        row = self.row_of.get(item_hash)
        if row is None:
            row = len(self._entries)
            self.row_of[item_hash] = row
            self._entries.append(CatalogEntry(item_id=ItemId("")))
            self.products.append(Product(item_id=ItemId("")))
            self._reserve(row + 1)
        return row

    def row_of_id(self, item_id: str) -> int | None:
        """The row of an item that the catalogue has, or None: never described, or deleted."""
        row = self.row_of.get(id_hash(item_id))
        return None if row is None or self.product_at(row) is None else row

    def product_at(self, row: int) -> Product | None:
        """The product of a row, None for one that the catalogue does not have: never described, or deleted."""
        product = self.products[row]
        return product if product.item_id and not product.deleted else None

    def code(self, name: str) -> int:
        """The code of a category or brand name; -1 when no product has it."""
        return self._codes.get(name, -1)

    def name(self, code: int) -> str:
        """The category or brand name behind a code of at least 0."""
        return self._names[code]

    def entry(self, row: int) -> CatalogEntry:
        """The catalogue entry behind a row."""
        return self._entries[row]

    def offer(self, entry: CatalogEntry) -> int:
        """Merge a catalogue entry into its row and return the row."""
        row = self.row(id_hash(entry.item_id))
        held = self._entries[row]
        held.item_id = entry.item_id
        held.merge(entry)
        product = held.product()
        if product != self.products[row]:  # a feed names every item that was acted on, its product as it was
            self._set_product(row, product)
        return row

    def fold(self, event: Event, enqueued_at: int) -> None:
        """Fold one accepted event straight into the merged counters or the catalogue."""
        if event.item_id is None:
            return
        if event.event_type is EventType.ITEM_UPDATED:
            entry = CatalogEntry(item_id=event.item_id, fields={})
            entry.apply(event, enqueued_at)
            self.offer(entry)
        elif event.event_type in BEHAVIOUR:
            row = self.row(id_hash(event.item_id))
            self.counters.add(row, event, enqueued_at)
            self.newest_at = max(self.newest_at, int(self.counters.newest_at[row]))
            self.version += 1

    def load_part(
        self, part: tuple[str, int], counters: Mapping[int, bytes], entries: Iterable[CatalogEntry] = ()
    ) -> None:
        """Replace the counters that one (source, partition) holds of these item hashes, and merge its entries."""
        rows = np.array([self.row(item_hash) for item_hash in counters], dtype=np.int64)
        columns = self._parts.setdefault(part, CounterColumns())
        columns.reserve(len(self.counters.newest_at))
        columns.load(rows, list(counters.values()))
        self._merge_parts(rows)
        for entry in entries:
            self.offer(entry)
        self.version += 1

    def clear_part(self, part: tuple[str, int]) -> None:
        """Forget one partition's counters before its snapshot is loaded anew."""
        if part in self._parts:
            self._parts[part] = CounterColumns(capacity=len(self.counters.newest_at))
            self._merge_parts(np.arange(len(self), dtype=np.int64))
            self.version += 1

    def block(self, rows: Rows, as_of: int) -> ItemBlock:
        """These rows evaluated at `as_of`."""
        return ItemBlock(
            layout=self.counters.layout,
            rows=rows,
            as_of=as_of,
            decayed=self.counters.decayed_at(rows, as_of),
            counts=self.counters.counts_at(rows, as_of),
            price_cents=self.price_cents[rows],
            stock=self.stock[rows],
            arrived_at=self.arrived_at[rows],
            category=self.category[rows],
            brand=self.brand[rows],
        )

    def in_category(self, name: str, rows: Rows) -> NDArray[np.bool_]:
        """bool[len(rows)]: is the name anywhere on the item's category path?"""
        code = self.code(name)
        return np.asarray((self.paths[rows] == code).any(axis=1) & (code >= 0))

    def in_categories(self, names: Iterable[str], rows: Rows) -> NDArray[np.bool_]:
        """bool[len(rows)]: is one of the names anywhere on the item's category path? One pass for any number of names.

        A name that no product has says nothing.
        """
        codes = [code for code in map(self.code, names) if code >= 0]
        if not codes:
            return np.zeros(len(rows), dtype=np.bool_)
        wanted = np.zeros(len(self._codes) + 1, dtype=np.bool_)  # the last one is what -1 finds
        wanted[codes] = True
        return np.asarray(wanted[self.paths[rows]].any(axis=1))

    def products_since(self, version: int) -> Rows:
        """int64[k]: the rows whose product was set after `products_version` was this; 0 asks for all."""
        return np.flatnonzero(self.product_versions[: len(self)] > version)

    def _code_of(self, name: str) -> int:
        code = self._codes.setdefault(name, len(self._names))
        if code == len(self._names):
            self._names.append(name)
        return code

    def _merge_parts(self, rows: Rows) -> None:
        merged = self.counters
        newest_at = np.full(len(rows), EMPTY_AT, dtype=np.int64)
        enqueued_at = newest_at.copy()
        for part in self._parts.values():
            part.reserve(len(merged.newest_at))
            newest_at = np.maximum(newest_at, part.newest_at[rows])
            enqueued_at = np.maximum(enqueued_at, part.last_enqueued_at[rows])
        decayed = np.zeros((len(rows), len(merged.layout.decayed)))
        counts = np.zeros((len(rows), len(merged.layout.counts)), dtype=np.int64)
        for part in self._parts.values():
            elapsed = elapsed_ms(part.newest_at[rows], newest_at)
            decayed += decay(part.decayed[rows], elapsed, merged.layout.half_lives_ms)
            counts += part.counts[rows]
        merged.newest_at[rows], merged.last_enqueued_at[rows] = newest_at, enqueued_at
        merged.decayed[rows], merged.counts[rows] = decayed, counts
        self.newest_at = max(self.newest_at, int(newest_at.max(initial=0)))

    def _set_product(self, row: int, product: Product) -> None:
        self.products[row] = product
        self.price_cents[row] = product.price_cents
        self.stock[row] = np.nan if product.stock is None else product.stock
        self.available[row] = product.available
        self.described[row] = product.described
        self.arrived_at[row] = NEVER if product.arrived_at is None else product.arrived_at
        codes = [self._code_of(name) for name in product.categories[:MAX_DEPTH]]
        self.paths[row] = -1
        self.paths[row, : len(codes)] = codes
        self.category[row] = codes[-1] if codes else -1
        self.brand[row] = -1 if product.brand is None else self._code_of(product.brand)
        self.version += 1
        self.products_version += 1
        self.product_versions[row] = self.products_version

    def _reserve(self, rows: int) -> None:
        self.counters.reserve(rows)
        missing = len(self.counters.newest_at) - len(self.price_cents)
        if missing <= 0:
            return
        fills: dict[str, Any] = {
            "price_cents": 0.0,
            "stock": np.nan,
            "available": False,
            "described": False,
            "product_versions": 0,
            "arrived_at": NEVER,
            "category": -1,
            "brand": -1,
            "paths": -1,
        }
        for name, fill in fills.items():
            column = getattr(self, name)
            more = np.full((missing, *column.shape[1:]), fill, dtype=column.dtype)
            setattr(self, name, np.concatenate([column, more]))
