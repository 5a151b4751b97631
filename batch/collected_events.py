"""The events of a whole table in memory, about 40 bytes each beside the ids, and the history they make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.shop_time import shifted
from batch.table_events import Mapped
from batch.table_mapping import KINDS
from shared.events import EventType
from shared.ingest.lake_table import EVENT_SCHEMA

_RULES: Final = 1
"""Raise it when the same rows become other events: the source's name hangs on it."""
_CODED: Final = ("user", "item", "session", "order")
_TYPES: Final = pa.array([*KINDS, EventType.ITEM_UPDATED.value])
_SLICE: Final = 200_000


@dataclass(frozen=True, slots=True)
class CatalogueRows:
    """item_updated rows: `at` int64 epoch ms, `items` ids, `changes` JSON text; of equal length."""

    at: NDArray[np.int64]
    items: Sequence[str]
    changes: Sequence[str]

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True)
class CollectedEvents:
    """Events in file order; `codes` are places in `distinct`, -1 for none. Arrays as in `Mapped`."""

    occurred_at: NDArray[np.int64]
    kind: NDArray[np.int8]
    quantity: NDArray[np.int32]
    price: NDArray[np.int64]
    line: NDArray[np.int64]
    codes: dict[str, NDArray[np.int32]]
    distinct: dict[str, pa.Array]
    ids: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.occurred_at)

    def shift(self, zone: ZoneInfo, weeks: int) -> CollectedEvents:
        """The same, moved by whole weeks of the wall clock."""
        return replace(self, occurred_at=shifted(self.occurred_at, zone, weeks))

    def first_seen(self) -> NDArray[np.int64]:
        """Of each item in `distinct` the instant of its first event, int64 epoch ms."""
        first = np.full(len(self.distinct["item"]), np.iinfo(np.int64).max, dtype=np.int64)
        np.minimum.at(first, self.codes["item"], self.occurred_at)
        return first


class Collector:
    """Takes mapped batches; `finish` brings their ids together."""

    def __init__(self) -> None:
        self._parts: list[Mapped] = []
        self._described: dict[str, dict[str, str]] = {}

    def add(self, mapped: Mapped) -> None:
        """Keep a batch's events; of the texts that describe an item the first in the file counts."""
        texts = {name: mapped.texts[name].dictionary_encode() for name in _CODED}
        self._describe(mapped)
        self._parts.append(replace(mapped, texts={**texts, "id": mapped.texts["id"]}))

    def described(self) -> dict[str, dict[str, str]]:
        """Item id -> title, category, brand, as far as events told."""
        return self._described

    def _describe(self, mapped: Mapped) -> None:
        for name in ("title", "category", "brand"):
            cells = mapped.texts[name]
            if cells.null_count == len(cells):
                continue
            known = cells.is_valid()
            pairs = pa.table({"item": mapped.texts["item"].filter(known), name: cells.filter(known)})
            first = pairs.group_by("item", use_threads=False).aggregate([(name, "first")])
            for item, value in zip(first["item"].to_pylist(), first[f"{name}_first"].to_pylist(), strict=True):
                self._described.setdefault(item, {}).setdefault(name, value)

    def finish(self) -> CollectedEvents:
        """All of them; the batches are forgotten."""
        codes, values = dict[str, NDArray[np.int32]](), dict[str, pa.Array]()
        kind = pa.dictionary(pa.int32(), pa.string())
        for name in _CODED:
            column = pa.chunked_array([part.texts[name] for part in self._parts], kind).unify_dictionaries()
            indices = [pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in column.chunks]
            codes[name] = np.concatenate([np.empty(0, np.int32), *indices]).astype(np.int32)
            values[name] = column.chunk(0).dictionary if column.num_chunks else pa.array([], pa.string())
        ids = pa.chunked_array([part.texts["id"] for part in self._parts], pa.string())
        parts, self._parts = self._parts, []

        def joined[Number: np.generic](arrays: list[NDArray[Number]], kind: type[Number]) -> NDArray[Number]:
            return np.concatenate([np.empty(0, kind), *arrays])

        return CollectedEvents(
            occurred_at=joined([part.at for part in parts], np.int64),
            kind=joined([part.kind for part in parts], np.int8),
            quantity=joined([part.quantity for part in parts], np.int32),
            price=joined([part.price for part in parts], np.int64),
            line=joined([part.line for part in parts], np.int64),
            codes=codes, distinct=values, ids=ids,
        )  # fmt: skip


def fingerprint(events: CollectedEvents, catalogue: CatalogueRows, *settings: object) -> str:
    """12 hex digits of BLAKE2b over everything the history is made of."""
    digest = blake2b("|".join(map(str, (_RULES, *settings, len(events), len(catalogue)))).encode(), digest_size=6)
    numbers = (events.occurred_at, events.kind, events.quantity, events.price, events.line, catalogue.at)
    for array in (*numbers, *events.codes.values()):
        digest.update(np.ascontiguousarray(array))
    for texts in (*(one.to_pylist() for one in events.distinct.values()), catalogue.items, catalogue.changes):
        digest.update("\0".join(texts).encode())
    if events.ids.null_count < len(events):
        digest.update("\0".join(one or "" for one in events.ids.to_pylist()).encode())
    return digest.hexdigest()


def history_rows(events: CollectedEvents, catalogue: CatalogueRows, mark: str) -> Iterator[pa.Table]:
    """Unnumbered lake rows (`EVENT_SCHEMA`) in time order, a few hundred thousand a table.

    At one instant what describes an item comes before what happens to it, the rest is in file order. Events without
    an id of their own get `<mark>-<line>`, catalogue rows `<mark>-item-<number>`.
    """
    before = len(catalogue)
    order = np.argsort(np.concatenate([catalogue.at, events.occurred_at]), kind="stable")
    changes, announced = pa.array(catalogue.changes, pa.string()), pa.array(catalogue.items, pa.string())
    contexts = [msgspec.json.encode({"order": one}).decode() for one in events.distinct["order"].to_pylist()]
    texts = {**events.distinct, "context": pa.array(contexts, pa.string())}
    ids = events.ids.combine_chunks() if events.ids.null_count < len(events) else None
    for start in range(0, len(order), _SLICE):
        places = order[start : start + _SLICE]
        rows, updates = np.where(places >= before, places - before, -1), np.where(places < before, places, -1)

        def told(name: str, code: str = "", rows: NDArray[np.int64] = rows) -> pa.Array:
            codes = _of(events.codes[code or name], rows, -1)
            return texts[name].take(pa.array(codes, mask=codes < 0))

        update = pa.array(updates, mask=updates < 0)
        line, at = _of(events.line, rows, -1), _of(events.occurred_at, rows, 0) + _of(catalogue.at, updates, 0)
        quantity, price = _of(events.quantity, rows, 0), _of(events.price, rows, -1)
        numbered = pc.binary_join_element_wise(mark, pc.cast(pa.array(line, mask=line < 0), pa.string()), "-")
        given = numbered if ids is None else pc.coalesce(ids.take(pa.array(rows, mask=rows < 0)), numbered)
        columns = {
            "event_id": pc.coalesce(
                given, pc.binary_join_element_wise(mark, "item", pc.cast(update, pa.string()), "-")
            ),
            "event_type": _TYPES.take(pa.array(_of(events.kind, rows, len(KINDS)))),
            "occurred_at": pa.array(at),
            "user_id": told("user"),
            "item_id": pc.coalesce(told("item"), announced.take(update)),
            "session_id": told("session"),
            "quantity": pa.array(quantity, mask=quantity == 0),
            "price_cents": pa.array(price, mask=price < 0),
            "recommendation_id": pa.nulls(len(places), pa.string()),
            "context": told("context", "order"),
            "changes": changes.take(update),
        }
        yield pa.table([pc.cast(columns[name], EVENT_SCHEMA.field(name).type) for name in EVENT_SCHEMA.names],
                       schema=EVENT_SCHEMA)  # fmt: skip


def _of[Number: np.generic](values: NDArray[Number], places: NDArray[np.int64], default: int) -> NDArray[Number]:
    """`values` at the places, `default` where a place is -1."""
    if not len(values):
        return np.full(len(places), default, dtype=values.dtype)
    return np.where(places < 0, np.array(default, dtype=values.dtype), values[places])
