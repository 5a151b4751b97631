"""The catalogue of a shop's own table: what is told of each item, and the item_updated rows that say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from batch.collected_events import CatalogueRows, CollectedEvents
from batch.price_history import daily_price_changes
from batch.rejects import Rejects
from batch.shop_time import shifted, walls_of_instants, zone_named
from batch.table_events import Verdicts, cents_of
from batch.table_mapping import ItemsPart
from batch.table_mapping import Mapping as TableMapping
from batch.table_reading import Batch, RowSource
from batch.table_times import UNREADABLE, read_numbers, read_times
from shared.errors import InvalidIdentifier
from shared.events import ItemChanges, check_id, from_ms
from shared.ingest.lake_files import DAY_MS

ItemFacts = dict[str, Any]
"""Some of the fields of `ItemChanges` as JSON values; `arrived_at` is epoch ms."""
TimedFacts = Sequence[tuple[str, int, ItemFacts]]
"""(item id, epoch ms, facts) in time order: what changed later."""

_BEFORE_MS: Final = 1
_ENCODER: Final = msgspec.json.Encoder()
_TRUE: Final = frozenset({"true", "t", "yes", "y", "1"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "0"})


def read_items(source: RowSource, mapping: TableMapping, rejects: Rejects,
               advance: Callable[[int], None]) -> dict[str, ItemFacts]:  # fmt: skip
    """Item id -> what the table of items tells; rows that cannot be read, and second rows of an item, are rejected."""
    part = mapping.items
    assert part is not None, "only a mapping with [items] has such a table"
    found: dict[str, ItemFacts] = {}
    for batch in source.batches:
        verdicts = Verdicts(batch.size)
        columns = _columns(batch, part, mapping, verdicts)
        faults: dict[str, list[int]] = {}
        for place in verdicts.good.nonzero()[0].tolist():
            facts = {name: values[place] for name, values in columns.items() if values[place] is not None}
            fault = _taken(found, facts)
            if fault:
                faults.setdefault(fault, []).append(place)
        for fault, places in faults.items():
            marked = np.zeros(batch.size, dtype=bool)
            marked[places] = True
            verdicts.reject(marked, part.columns.id if "id" in fault else "", fault)
        rejects.add_batch(batch, verdicts)
        advance(batch.size + len(batch.bad))
    return found


def catalogue_rows(
    events: CollectedEvents,
    told: Mapping[str, ItemFacts],
    mapping: TableMapping,
    *,
    weeks: int,
    follow_paid: bool = True,
    later: TimedFacts = (),
) -> CatalogueRows:
    """Every item, announced one millisecond before its first event, and what changed afterwards.

    Items without an event come with the first of all. Where nothing tells a title it is the id. With `follow_paid` the
    price that is paid is the item's, as `daily_price_changes` says. `told` is as of before the shift of `weeks`;
    `events` are shifted, and so is `later`.
    """
    zone = zone_named(mapping.shop.time_zone)
    first, items = events.first_seen(), events.distinct["item"].to_pylist()
    first_at = dict(zip(items, first.tolist(), strict=True))
    start = int(events.occurred_at.min())
    paid = _first_prices(events) if follow_paid else {}
    rows: list[tuple[int, str, str]] = []
    for item in dict.fromkeys([*items, *told]):
        seen_at = first_at.get(item, start) - _BEFORE_MS
        facts = {"title": item, **told.get(item, {})}
        if item in first_at:
            facts = {**({"price_cents": paid[item]} if item in paid else {}), "arrived_at": None, **facts}
        if "arrived_at" in facts:
            known = facts["arrived_at"]
            at = seen_at if known is None else int(shifted(np.array([known]), zone, weeks)[0])
            facts["arrived_at"] = from_ms(at).isoformat()
        rows.append((seen_at, item, _ENCODER.encode(facts).decode()))
    if paid:
        rows += _price_rows(events, items, zone)
    rows += [(at, item, _ENCODER.encode(facts).decode()) for item, at, facts in later]
    rows.sort(key=lambda row: row[0])
    return CatalogueRows(
        np.array([at for at, _, _ in rows], dtype=np.int64), [row[1] for row in rows], [row[2] for row in rows]
    )


def described_items(texts: Mapping[str, Mapping[str, str]], separator: str) -> dict[str, ItemFacts]:
    """What events told of items (title, category, brand) as facts; `separator` cuts a category's path."""
    facts = {}
    for item, one in texts.items():
        found: ItemFacts = {}
        if "title" in one:
            found["title"] = one["title"][:4000]
        if "category" in one:
            found["categories"] = category_path([one["category"]], separator)
        if "brand" in one:
            found["brand"] = one["brand"][:200]
        facts[item] = found
    return facts


def category_path(cells: Sequence[str | None], separator: str) -> list[str]:
    """From root to leaf, at most 10 names of at most 200 characters; the leaf is never cut away."""
    parts = [part.strip() for cell in cells if cell for part in (cell.split(separator) if separator else [cell])]
    kept = [part[:200] for part in parts if part]
    return [*kept[:9], kept[-1]] if len(kept) > 10 else kept


def _first_prices(events: CollectedEvents) -> dict[str, int]:
    priced = np.flatnonzero(events.price >= 0)
    order = priced[np.argsort(events.occurred_at[priced], kind="stable")]
    codes, places = np.unique(events.codes["item"][order], return_index=True)
    ids = events.distinct["item"].take(pa.array(codes)).to_pylist()
    return dict(zip(ids, events.price[order[places]].tolist(), strict=True))


def _price_rows(events: CollectedEvents, items: Sequence[str], zone: ZoneInfo) -> list[tuple[int, str, str]]:
    priced = events.price >= 0
    at = events.occurred_at[priced]
    sales = pd.DataFrame(
        {
            "item": events.codes["item"][priced],
            "day": walls_of_instants(at, zone) // DAY_MS,
            "price_cents": events.price[priced],
            "at": at,
        }
    )
    return [
        (last_at + 1, items[code], _ENCODER.encode({"price_cents": price}).decode())
        for code, _, price, last_at in daily_price_changes(sales)
    ]


def _taken(found: dict[str, ItemFacts], facts: ItemFacts) -> str:
    """Take a row's facts; answers what is wrong with them, if something is."""
    item = facts.pop("id", None)
    try:
        if item is None:
            return "missing id"
        check_id(item, "id")
        msgspec.convert({name: value for name, value in facts.items() if name != "arrived_at"}, ItemChanges)
    except InvalidIdentifier:
        return "id holds a / or a control character, or is longer than 128 bytes"
    except msgspec.ValidationError as error:
        return f"not a product: {error}"
    if item in found:
        return "a second row of this item's id"
    found[item] = facts
    return ""


def _columns(batch: Batch, part: ItemsPart, mapping: TableMapping, verdicts: Verdicts) -> dict[str, Sequence[Any]]:
    """Each field as a list of values, None where the row has none."""
    names, found = part.columns, dict[str, Sequence[Any]]()
    for name in ("id", "title", "description", "brand"):
        column = getattr(names, name)
        if column is not None:
            found[name] = batch.column(column).to_pylist()
    levels = (names.categories,) if isinstance(names.categories, str) else names.categories
    if levels:
        cells = [batch.column(level).to_pylist() for level in levels]
        paths = [category_path(row, part.category_separator) for row in zip(*cells, strict=True)]
        found["categories"] = [path or None for path in paths]
    if names.price is not None:
        cells = batch.column(names.price)
        cents, faults = cents_of(cells, part.decimal, part.thousands, part.price_scale, mapping.shop.currency)
        found["price_cents"] = _with_faults(cells, cents, faults, names.price, verdicts)
    if names.stock is not None:
        cells = batch.column(names.stock)
        numbers = np.nan_to_num(np.floor(read_numbers(cells, part.decimal, part.thousands)), nan=-1)
        faults = {"stock is no number": numbers < 0}
        found["stock"] = _with_faults(
            cells, np.clip(numbers, -1, 10**9).astype(np.int64), faults, names.stock, verdicts
        )
    if names.hidden is not None:
        words = [None if one is None else one.lower() for one in batch.column(names.hidden).to_pylist()]
        wrong = np.array([one is not None and one not in _TRUE | _FALSE for one in words])
        verdicts.reject(wrong, names.hidden, "hidden is neither true nor false")
        found["hidden"] = [None if one is None else one in _TRUE for one in words]
    if names.arrived_at is not None:
        cells = batch.column(names.arrived_at)
        at = read_times(cells, part.time_formats, zone_named(part.time_zone or mapping.shop.time_zone))
        faults = {f"arrived_at is not {' or '.join(part.time_formats)}": (at == UNREADABLE) | (at < 0)}
        found["arrived_at"] = _with_faults(cells, at, faults, names.arrived_at, verdicts)
    if part.attributes:
        cells = [batch.column(name).to_pylist() for name in part.attributes]
        found["attributes"] = [
            {name: value for name, value in zip(part.attributes, row, strict=True) if value is not None} or None
            for row in zip(*cells, strict=True)
        ]
    return found


def _with_faults(
    cells: pa.Array, values: NDArray[np.int64], faults: Mapping[str, NDArray[np.bool_]], column: str, verdicts: Verdicts
) -> list[int | None]:
    given = cells.is_valid().to_numpy(zero_copy_only=False)
    for reason, where in faults.items():
        verdicts.reject(given & where, column, reason)
    return [value if there else None for value, there in zip(values.tolist(), given.tolist(), strict=True)]
