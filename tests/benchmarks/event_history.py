"""Large histories for benchmarks, made column by column: shoppers and products with a long tail, in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.events import EventType
from shared.features.aggregations import DAY_MS
from shared.ingest.lake_table import EVENT_SCHEMA

START_AT: Final = 1_740_000_000_000 // DAY_MS * DAY_MS
DAYS: Final = 90
KINDS: Final = (EventType.VIEW, EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE)
SHARES: Final = (0.80, 0.12, 0.02, 0.06)


def users_and_items(events: int) -> tuple[int, int]:
    """How many shoppers and products so many events have: 1M x 100K at 10M."""
    return max(100, events // 10), max(50, events // 100)


def history_tables(events: int, seed: int = 0) -> Iterator[pa.Table]:
    """`events` rows of `EVENT_SCHEMA` over 90 days, a table a day; each product is described on the first."""
    users, items = users_and_items(events)
    draw = np.random.default_rng(seed)
    yield _catalogue(items)
    edges = np.linspace(0, events - items, DAYS + 1).astype(np.int64)
    for day, (first, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        yield _day(draw, day, np.arange(first, end), users, items)


def _day(draw: np.random.Generator, day: int, numbers: NDArray[np.int64], users: int, items: int) -> pa.Table:
    count = len(numbers)
    at = np.sort(draw.integers(0, DAY_MS, count)) + START_AT + day * DAY_MS + 1
    kinds = draw.choice(len(KINDS), count, p=SHARES)
    names = pa.array([kind.value for kind in KINDS])
    prices = draw.integers(99, 99_999, items) if items else np.empty(0, np.int64)
    item = _long_tail(draw, count, items)
    columns: dict[str, pa.Array] = {
        "event_id": _named("e", numbers),
        "event_type": names.take(pa.array(kinds)),
        "occurred_at": pa.array(at),
        "user_id": _named("u", _long_tail(draw, count, users)),
        "item_id": _named("i", item),
        "quantity": pa.array(np.where(kinds == 3, 1, 0), pa.int32(), mask=kinds != 3),
        "price_cents": pa.array(prices[item]),
    }
    return _table(columns, count)


def _catalogue(items: int) -> pa.Table:
    numbers = np.arange(items)
    name, category, price = (_text(values) for values in (numbers, numbers % 200, 100 + numbers % 9_000))
    before = ('{"title":"Product ', '","categories":["All","Category ', '"],"price_cents":', ',"stock":10}')
    changes = pc.binary_join_element_wise(before[0], name, before[1], category, before[2], price, before[3], "")
    columns = {
        "event_id": _named("c", numbers),
        "event_type": pa.array([EventType.ITEM_UPDATED.value]).take(pa.array(np.zeros(items, np.int64))),
        "occurred_at": pa.array(np.full(items, START_AT)),
        "item_id": _named("i", numbers),
        "changes": changes,
    }
    return _table(columns, items)


def _table(columns: dict[str, pa.Array], count: int) -> pa.Table:
    filled = [columns.get(field.name, pa.nulls(count, field.type)) for field in EVENT_SCHEMA]
    return pa.table(filled, schema=EVENT_SCHEMA)


def _long_tail(draw: np.random.Generator, count: int, size: int) -> NDArray[np.int64]:
    """Places drawn so that density falls with the square root of the rank."""
    return np.minimum((draw.random(count) ** 2 * size).astype(np.int64), size - 1)


def _named(letter: str, numbers: NDArray[np.int64]) -> pa.Array:
    return pc.binary_join_element_wise(letter, _text(numbers), "")


def _text(numbers: NDArray[np.int64]) -> pa.Array:
    return pa.array(numbers).cast(pa.string())
