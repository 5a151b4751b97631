"""The catalogue of products: the fold of item_updated events, per field the newest effective time wins."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct

from shared.events import Event, ItemId, effective_at, id_hash, to_ms


class Product(Struct, frozen=True, kw_only=True):
    """One product as it stands now. `categories` is the path from root to leaf; instants are epoch milliseconds."""

    item_id: ItemId
    title: str = ""
    description: str = ""
    categories: tuple[str, ...] = ()
    brand: str | None = None
    price_cents: int = 0
    stock: int | None = None
    hidden: bool = False
    deleted: bool = False
    arrived_at: int | None = None
    attributes: dict[str, Any] = {}

    @property
    def category(self) -> str:
        """The leaf of the category path, or the empty string."""
        return self.categories[-1] if self.categories else ""

    @property
    def available(self) -> bool:
        """May be shown: neither hidden nor deleted, and not known to be out of stock."""
        return not self.hidden and not self.deleted and self.stock != 0

    @property
    def described(self) -> bool:
        """The shop has said what it is: it has a title, and was not deleted."""
        return bool(self.title) and not self.deleted


FieldVersion = tuple[int, int, Any]
"""(effective_at, event id hash, value): the greatest of these wins a field."""

_FIELDS = tuple(field for field in Product.__struct_fields__ if field != "item_id")


class CatalogEntry(Struct):
    """A product's fields, each with the instant that set it; merging is commutative and idempotent."""

    item_id: ItemId
    fields: dict[str, FieldVersion] = {}

    def apply(self, event: Event, enqueued_at: int) -> None:
        """Fold one item_updated event that the broker took at `enqueued_at` (epoch ms)."""
        at = effective_at(event.occurred_at_ms, enqueued_at)
        changes = event.item_changes()
        for name in _FIELDS:
            value = getattr(changes, name)
            if value is not UNSET:
                plain = to_ms(value) if name == "arrived_at" else value
                self._offer(name, (at, id_hash(event.event_id), plain))

    def merge(self, other: CatalogEntry) -> None:
        """Take every field in which `other` is newer."""
        for name, version in other.fields.items():
            self._offer(name, version)

    def _offer(self, name: str, version: FieldVersion) -> None:
        held = self.fields.get(name)
        if held is None or version[:2] > held[:2]:
            self.fields[name] = version
        elif version[:2] == held[:2] and _ENCODER.encode(version[2]) > _ENCODER.encode(held[2]):
            self.fields[name] = version  # one event id, two contents: whichever comes first, the same one wins

    def product(self) -> Product:
        """The product as the newest fields make it."""
        values = {name: version[2] for name, version in self.fields.items()}
        return msgspec.convert({"item_id": self.item_id, **values}, Product)

    def encode(self) -> bytes:
        """MessagePack, fields in a fixed order so that equal entries are equal bytes."""
        return _ENCODER.encode([self.item_id, {name: self.fields[name] for name in sorted(self.fields)}])


def decode_entry(data: bytes) -> CatalogEntry:
    """The inverse of `CatalogEntry.encode`."""
    item_id, fields = _DECODER.decode(data)
    return CatalogEntry(item_id=item_id, fields=fields)


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(tuple[ItemId, dict[str, FieldVersion]])
