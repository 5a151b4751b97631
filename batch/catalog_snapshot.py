"""The catalogue as the lake tells it: the snapshot that defines a release's dense item index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.catalog import CatalogEntry, Product, decode_entry
from shared.errors import ConfigurationError
from shared.events import EventType, ItemId
from shared.ingest.lake import read_rows
from shared.ingest.logged_events import logged_events
from shared.ports import BlobStore


def load_item_ids(data: Path) -> list[ItemId]:
    """Every item of the night in the order of the dense index; raises ConfigurationError before it was built."""
    path = data / "nightly/interactions/items.parquet"
    if not path.exists():
        raise ConfigurationError(f"{path} is not there; run python -m batch.build_interactions --data {data} first")
    return [ItemId(item_id) for item_id in pq.read_table(path, columns=["item_id"])["item_id"].to_pylist()]


def fold_catalog(blobs: BlobStore, item_ids: Sequence[ItemId], as_of: int) -> tuple[CatalogEntry, ...]:
    """The entry of each item from the `item_updated` events enqueued by `as_of` (epoch ms).

    Raises ConfigurationError when the lake no longer describes one of them.
    """
    entries = _fold(blobs, item_ids, as_of)
    empty = next((entry.item_id for entry in entries if not entry.fields), None)
    if empty is not None:
        raise ConfigurationError(f"the lake does not describe item {empty!r} any more; run the night from compact_lake")
    return entries


def products_at(blobs: BlobStore, item_ids: Sequence[ItemId], as_of: int) -> list[Product]:
    """Each item as the catalogue stood at `as_of` (epoch ms); one that was not described by then has its id alone."""
    return [entry.product() for entry in _fold(blobs, item_ids, as_of)]


def _fold(blobs: BlobStore, item_ids: Sequence[ItemId], as_of: int) -> tuple[CatalogEntry, ...]:
    rows = read_rows(blobs, until_enqueued_at=as_of)
    entries = {item_id: CatalogEntry(item_id=item_id, fields={}) for item_id in item_ids}
    for logged in logged_events(rows.filter(pc.field("event_type") == EventType.ITEM_UPDATED.value)):
        assert logged.event.item_id is not None, "decode_event lets no item_updated pass without its item"
        entry = entries.get(logged.event.item_id)
        if entry is not None:
            entry.apply(logged.event, logged.enqueued_at)
    return tuple(entries.values())


def encode_entries(entries: Sequence[CatalogEntry]) -> bytes:
    """The entries in order, to travel to Spark's workers."""
    return msgspec.msgpack.encode([entry.encode() for entry in entries])


def decode_entries(data: bytes) -> list[CatalogEntry]:
    """The inverse of `encode_entries`."""
    return [decode_entry(each) for each in msgspec.msgpack.decode(data, type=list[bytes])]
