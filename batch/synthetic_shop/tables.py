"""The shop's days as Arrow tables of events, in time order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.synthetic_shop.assortment import LEAVES
from batch.synthetic_shop.calendar import Calendar
from batch.synthetic_shop.catalog import Catalog, Ints
from batch.synthetic_shop.funnel import CART, PURCHASE
from batch.synthetic_shop.market import MarketDay
from batch.synthetic_shop.simulation import Behaviour, ShopDay, Simulation
from batch.synthetic_shop.streams import random_stream
from batch.synthetic_shop.wording import Wording, brand_names, family_kind
from shared.events import EventType, from_ms
from shared.ingest.lake_table import EVENT_SCHEMA

TYPE_NAMES = (EventType.VIEW, EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE)
_JSON = msgspec.json.Encoder()
# The import writes what it changed within ten minutes that follow those of the arrivals.
_CHANGES_FROM_MS, _CHANGES_SPAN_MS = 600_000, 600_000


class ShopTables:
    """Turns a simulation into one Arrow table (`EVENT_SCHEMA`) a day; event ids start with `prefix`."""

    def __init__(self, simulation: Simulation, prefix: str) -> None:
        self._simulation = simulation
        self._prefix = prefix
        catalog = simulation.catalog
        self._item_ids = pa.array(catalog.item_ids())
        users = sum(len(block) for block in simulation.blocks)
        self._user_ids = pa.array([f"user-{number + 1:07d}" for number in range(users)])
        self._texts = _texts(simulation.seed, catalog)
        self._initial_stock = simulation.market.initial_stock()

    def tables(self, days: Iterator[ShopDay]) -> Iterator[pa.Table]:
        """The table of each day: the import's item_updated rows and what shoppers did, before the calendar's end."""
        calendar = self._simulation.calendar
        for day in days:
            updates = self._item_rows(day.market, calendar)
            behaviour = self._behaviour_rows(day)
            rows = pa.concat_tables([updates, behaviour]).filter(pc.field("occurred_at") < calendar.ends_at)
            order = np.argsort(rows.column("occurred_at").to_numpy(), kind="stable")
            rows = rows.take(pa.array(order))
            start = f"{self._prefix}-{day.market.day:04d}-"
            rows = rows.set_column(0, EVENT_SCHEMA.field("event_id"), _numbered(start, np.arange(rows.num_rows)))
            yield rows

    def _behaviour_rows(self, day: ShopDay) -> pa.Table:
        behaviour = day.behaviour
        size = len(behaviour.item)
        names = pa.array([name.value for name in TYPE_NAMES])
        return _table(
            size,
            event_type=names.take(pa.array(behaviour.type_code)),
            occurred_at=pa.array(behaviour.occurred_at),
            user_id=self._user_ids.take(pa.array(behaviour.shopper)),
            item_id=self._item_ids.take(pa.array(behaviour.item)),
            session_id=_session_ids(day.market.day, behaviour),
            quantity=self._quantities(day),
            price_cents=pa.array(day.market.price_cents[behaviour.item]),
        )

    def _quantities(self, day: ShopDay) -> pa.Array:
        """What is used up is bought in small numbers, the rest one at a time; the same in the cart and at checkout."""
        behaviour, catalog = day.behaviour, self._simulation.catalog
        random = random_stream(self._simulation.seed, "quantities", day.market.day)
        # One draw a (visit, item) pair of the day, whatever the number of its events.
        pair = (behaviour.block * (behaviour.visit.max(initial=0) + 1) + behaviour.visit) * len(
            catalog
        ) + behaviour.item
        _, place = np.unique(pair, return_inverse=True)
        drawn = np.minimum(random.geometric(0.6, int(place.max(initial=-1)) + 1), 6)[place]
        quantity = np.where(catalog.consumable[behaviour.item], drawn, 1)
        counted = np.isin(behaviour.type_code, (CART, PURCHASE))
        return pa.array(quantity, pa.int32(), mask=~counted)

    def _item_rows(self, market: MarketDay, calendar: Calendar) -> pa.Table:
        catalog = self._simulation.catalog
        start = int(calendar.starts_at[market.day])
        arriving = np.flatnonzero(catalog.arrival_day == market.day)
        rows = [(int(catalog.arrived_at[item]), int(item), self._whole(int(item))) for item in arriving]
        if market.day == 0:
            rows += [(start, int(item), self._whole(int(item))) for item in np.flatnonzero(catalog.arrival_day < 0)]
        random = random_stream(self._simulation.seed, "import-times", market.day)
        moments = start + _CHANGES_FROM_MS + np.sort(random.integers(0, _CHANGES_SPAN_MS, len(market.updates)))
        rows += [
            (int(at), item, market.updates[item]) for at, item in zip(moments, sorted(market.updates), strict=True)
        ]
        rows.sort(key=lambda row: row[:2])
        return _table(
            len(rows),
            event_type=pa.repeat(EventType.ITEM_UPDATED.value, len(rows)),
            occurred_at=pa.array([row[0] for row in rows], pa.int64()),
            item_id=self._item_ids.take(pa.array([row[1] for row in rows], pa.int64())),
            changes=pa.array([_JSON.encode(row[2]).decode() for row in rows], pa.string()),
        )

    def _whole(self, item: int) -> dict[str, Any]:
        """Every catalogue field of an item that is new to the lake."""
        catalog = self._simulation.catalog
        leaf = LEAVES[catalog.leaves[catalog.leaf[item]]]
        title, description, brand, attributes = self._texts[item]
        arrived_at: datetime = from_ms(int(catalog.arrived_at[item]))
        return {
            "title": title,
            "description": description,
            "categories": [leaf.root, leaf.name],
            "brand": brand,
            "price_cents": int(catalog.price_cents[item]),
            "stock": int(self._initial_stock[item]),
            "hidden": False,
            "arrived_at": arrived_at,
            "attributes": attributes,
        }


def _texts(seed: int, catalog: Catalog) -> list[tuple[str, str, str, dict[str, str]]]:
    """(title, description, brand, attributes) of every item."""
    brands = brand_names(seed, catalog.brand_count)
    wording = Wording(seed, brands, len(catalog))
    first_family = catalog.family[catalog.leaf_start[:-1]]
    texts = []
    for item in range(len(catalog)):
        leaf, family, brand = int(catalog.leaf[item]), int(catalog.family[item]), int(catalog.brand[item])
        kind = family_kind(catalog.leaves[leaf], family - int(first_family[leaf]))
        number = item - int(catalog.family_start[family])
        style = int(catalog.style_number[item])
        title, description, attributes = wording.describe(
            item, brand=brand, kind=kind, style=style, number=number, consumable=bool(catalog.consumable[item])
        )
        texts.append((title, description, brands[brand], attributes))
    return texts


def _session_ids(day: int, behaviour: Behaviour) -> pa.Array:
    blocks = pc.utf8_lpad(pa.array(behaviour.block).cast(pa.string()), 4, "0")
    visits = pc.utf8_lpad(pa.array(behaviour.visit).cast(pa.string()), 5, "0")
    return pc.binary_join_element_wise(f"s{day:04d}", blocks, visits, "-")


def _numbered(start: str, numbers: Ints) -> pa.Array:
    return pc.binary_join_element_wise(start, pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 7, "0"), "")


def _table(size: int, **columns: pa.Array) -> pa.Table:
    """Rows of `EVENT_SCHEMA` with nulls where no column is given."""
    return pa.table(
        [columns[field.name] if field.name in columns else pa.nulls(size, field.type) for field in EVENT_SCHEMA],
        schema=EVENT_SCHEMA,
    )
