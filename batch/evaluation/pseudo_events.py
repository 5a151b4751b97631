"""Rows of a data set as events of a shop, folded by the fold that serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.evaluation.phases import Known, Queries
from batch.interactions import BEHAVIOUR_TYPES, Interactions
from shared.catalog import Product
from shared.events import BEHAVIOUR, Event, EventType, ItemId, UserId, from_ms, to_ms
from shared.features.aggregations import DAY_MS
from shared.features.items import MAX_DEPTH, ItemTable
from shared.features.replay import LoggedEvent, UserShards
from shared.features.shard import Shopper

ASKED_AT: Final = to_ms(datetime(2026, 7, 1, 12, tzinfo=UTC))
"""The one instant of all pages of such data; which it is tells nothing, for positions carry no calendar."""
DESCRIBED_DAYS: Final = 365
"""Products are described so long before, when nothing else has happened yet."""

TITLE: Final = "item"
"""Of every item: one without a title does not count as described, and a word that all share says nothing."""

_SOURCE: Final = "evaluation"
_REPORT_EVERY: Final = 1000


def item_name(index: int) -> ItemId:
    """How events name the item of this number."""
    return ItemId(f"i{index}")


@dataclass(frozen=True, slots=True)
class ItemAttributes:
    """What is known of items by number: `paths` from the most frequent attribute to the rarest, and brands."""

    paths: dict[int, tuple[str, ...]] = field(default_factory=dict)
    brands: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        items: pa.Array,
        lengths: NDArray[np.int64],
        members: pa.Array,
        brands: pa.Array | None,
    ) -> ItemAttributes:
        """From the columns of an attributes file; items that `names` (ids by number) does not hold are passed over.

        An item with more attributes than a category path can hold keeps its rarest.
        """
        number_of = {name: place for place, name in enumerate(names)}
        codes = members.dictionary_encode()
        words = codes.dictionary.cast(pa.large_string()).to_pylist()
        flat = np.asarray(codes.indices)
        frequency = np.bincount(flat, minlength=len(words))
        # Equal frequencies stand in the order of first appearance, never in that of ids.
        standing = np.argsort(np.argsort(-frequency, kind="stable"))
        ends = np.cumsum(lengths)
        paths: dict[int, tuple[str, ...]] = {}
        named: dict[int, str] = {}
        for row, name in enumerate(items.to_pylist()):
            place = number_of.get(name)
            if place is None:
                continue
            own = sorted(set(flat[ends[row] - lengths[row] : ends[row]].tolist()), key=lambda code: standing[code])
            paths[place] = tuple(f"a{words[code]}" for code in own[-MAX_DEPTH:])
            if brands is not None and brands[row].is_valid:
                named[place] = f"b{brands[row].as_py()}"
        return cls(paths, named)

    def categories(self, items: int) -> NDArray[np.int64]:
        """int64[items]: a code of each item's rarest attribute, -1 where it has none."""
        codes: dict[str, int] = {}
        leaves = [path[-1] if path else None for path in (self.paths.get(index, ()) for index in range(items))]
        return np.array([-1 if leaf is None else codes.setdefault(leaf, len(codes)) for leaf in leaves], np.int64)

    def products(self, items: int) -> list[Product]:
        """The whole catalogue, in order of the numbers."""
        return [self.product(index) for index in range(items)]

    def product(self, index: int) -> Product:
        """The item as the shop would describe it."""
        return Product(
            item_id=item_name(index),
            title=TITLE,
            categories=self.paths.get(index, ()),
            brand=self.brands.get(index),
        )


def as_interactions(known: Known, kind: EventType) -> Interactions:
    """The rows as the night's models read them, every one an event of this type."""
    at = ASKED_AT - known.age_ms
    return Interactions(
        user=known.user,
        item=known.item,
        event_type=np.full(len(known), BEHAVIOUR_TYPES.index(kind), np.int8),
        at=at,
        enqueued_at=at,
        quantity=np.ones(len(known), np.int32),
        session=known.session,
    )


def fold_items(
    known: Known, items: int, attributes: ItemAttributes, kind: EventType, advance: Callable[[int], None]
) -> ItemTable:
    """The item table as it stands when the pages are asked for: all `items` described, the known rows counted.

    Row i of the table is item i. `advance` is told how many rows got done.
    """
    table = ItemTable()
    described_at = from_ms(ASKED_AT - DESCRIBED_DAYS * DAY_MS)
    for index, product in enumerate(attributes.products(items)):
        changes = {"title": product.title, "categories": list(product.categories), "brand": product.brand}
        event = Event(
            event_id=f"d{index}",
            event_type=EventType.ITEM_UPDATED,
            occurred_at=described_at,
            item_id=product.item_id,
            changes=changes,
        )
        table.fold(event, event.occurred_at_ms)
    for done, logged in enumerate(_oldest_first(known, kind), 1):
        table.fold(logged.event, logged.enqueued_at)
        if done % _REPORT_EVERY == 0:
            advance(_REPORT_EVERY)
    return table


def shopper_of(queries: Queries, place: int, kind: EventType) -> Shopper:
    """Who asks query `place`: her history, and nothing else, folded by itself."""
    user_id = UserId(f"q{place}")
    shards = UserShards()
    low, high = int(queries.starts[place]), int(queries.starts[place + 1])
    ages = queries.age_ms[low:high].tolist()
    for number, (item, age) in enumerate(zip(queries.history[low:high].tolist(), ages, strict=True)):
        shards.fold(_logged(_event(f"{user_id}-{number}", kind, user_id, item, ASKED_AT - age), number))
    return shards.shopper(user_id, ASKED_AT)


def _oldest_first(known: Known, kind: EventType) -> Iterator[LoggedEvent]:
    assert kind in BEHAVIOUR, kind
    order = np.argsort(-known.age_ms, kind="stable")
    columns = known.user[order].tolist(), known.item[order].tolist(), (ASKED_AT - known.age_ms[order]).tolist()
    for number, (user, item, at) in enumerate(zip(*columns, strict=True)):
        yield _logged(_event(f"k{number}", kind, UserId(f"u{user}"), item, at), number)


def _event(event_id: str, kind: EventType, user_id: UserId, item: int, at: int) -> Event:
    return Event(event_id=event_id, event_type=kind, occurred_at=from_ms(at), user_id=user_id, item_id=item_name(item))


def _logged(event: Event, sequence: int) -> LoggedEvent:
    return LoggedEvent(_SOURCE, 0, sequence, event.occurred_at_ms, event)
