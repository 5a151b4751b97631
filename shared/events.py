"""The event: its one definition, its bytes on the wire, and how a key chooses a partition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Annotated, Any, Literal, NewType

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from shared.errors import InvalidEvent, InvalidIdentifier

UserId = NewType("UserId", str)
ItemId = NewType("ItemId", str)
SessionId = NewType("SessionId", str)
RecommendationId = NewType("RecommendationId", str)

MAX_ID_BYTES = 128
MAX_EVENT_BYTES = 32 * 1024
FUTURE_LIMIT_MS = 24 * 3600 * 1000
"""An event whose occurred_at lies further than this beyond its enqueued_at is a dead letter."""


class EventType(StrEnum):
    """What happened."""

    VIEW = "view"
    CART = "cart"
    REMOVE_FROM_CART = "remove_from_cart"
    PURCHASE = "purchase"
    PREFERENCES_SET = "preferences_set"
    USER_ERASED = "user_erased"
    ITEM_UPDATED = "item_updated"


BEHAVIOUR = frozenset({EventType.VIEW, EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE})

Text = Annotated[str, Meta(max_length=4000)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Cents = Annotated[int, Meta(ge=0, le=10**11)]
Digits = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
"""128 bits in hexadecimal."""


class ItemChanges(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Catalogue fields an item_updated event sets; a field left out stays as it is.

    `categories` is the path from root to leaf. `arrived_at` is when the shop first offered the item. A `deleted` item
    is as if the catalogue had never had it, until it is set to false.
    """

    title: Text | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    categories: Annotated[list[Name], Meta(max_length=10)] | UnsetType = UNSET
    brand: Name | UnsetType | None = UNSET
    price_cents: Cents | UnsetType = UNSET
    stock: Annotated[int, Meta(ge=0, le=10**9)] | UnsetType | None = UNSET
    hidden: bool | UnsetType = UNSET
    deleted: bool | UnsetType = UNSET
    arrived_at: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    attributes: Annotated[dict[Name, str | float | bool], Meta(max_length=50)] | UnsetType = UNSET


class Preferences(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What a shopper asked for; it replaces what she asked for before."""

    hidden_items: Annotated[list[str], Meta(max_length=500)] = []
    hidden_categories: Annotated[list[Name], Meta(max_length=100)] = []
    hidden_brands: Annotated[list[Name], Meta(max_length=100)] = []
    favourite_categories: Annotated[list[Name], Meta(max_length=100)] = []
    min_price_cents: Cents | None = None
    max_price_cents: Cents | None = None
    personalised: bool = True


class Erasure(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whom a user_erased event without user_id erases, by the keyed hash of her id, and for which receipt."""

    user_key: Digits
    receipt: Digits


class Event(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """One thing that happened in the shop. Decode with `decode_event`: it alone checks ids and combinations."""

    event_id: str
    event_type: EventType
    occurred_at: Annotated[datetime, Meta(tz=True)]
    user_id: UserId | None = None
    item_id: ItemId | None = None
    session_id: SessionId | None = None
    quantity: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    price_cents: Cents | None = None
    recommendation_id: RecommendationId | None = None
    context: Annotated[dict[Name, Annotated[str, Meta(max_length=200)]], Meta(max_length=20)] | None = None
    changes: dict[str, Any] | None = None
    schema_version: Literal[1] = 1

    @cached_property
    def occurred_at_ms(self) -> int:
        """Epoch milliseconds."""
        return to_ms(self.occurred_at)

    @property
    def partition_key(self) -> str:
        """The id that chooses the partition: the item's for item_updated, else the user's.

        An erasure in keyed form goes to partitions that are named (`EventLog.append_to`), so its key chooses none.
        """
        key = self.item_id if self.event_type is EventType.ITEM_UPDATED else self.subject
        assert key is not None, "decode_event lets no event pass without its key"
        return key

    @property
    def subject(self) -> UserId | None:
        """Whose event it is: `user_id`, or `keyed_user` of an erasure in keyed form; None of item_updated."""
        if self.user_id is not None or self.event_type is not EventType.USER_ERASED:
            return self.user_id
        return keyed_user(self.erasure().user_key)

    def erasure(self) -> Erasure:
        """Whom a user_erased event without user_id erases."""
        return _convert(self.changes or {}, Erasure)

    def item_changes(self) -> ItemChanges:
        """The catalogue fields of an item_updated event."""
        return _convert(self.changes or {}, ItemChanges)

    def preferences(self) -> Preferences:
        """The preferences of a preferences_set event."""
        return _convert(self.changes or {}, Preferences)


_DECODER = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()


def decode_event(body: bytes) -> Event:
    """Decode and check one JSON event.

    Raises:
        InvalidEvent: not JSON, a wrong type, a field that is missing, unknown or out of bounds, or fields
            that do not go together; the message names the field.
    """
    if len(body) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"the event has {len(body)} bytes, more than the {MAX_EVENT_BYTES} allowed")
    try:
        event = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent(str(error)) from error
    return _checked(event)


def event_from_fields(fields: Mapping[str, Any]) -> Event:
    """As `decode_event`, from a mapping of JSON values. Raises InvalidEvent."""
    return _checked(_convert(fields, Event))


def keyed_user(user_key: str) -> UserId:
    """How code names a user of whom it knows the keyed hash alone (32 hexadecimal digits); no id can look like it."""
    return UserId("\x00" + user_key)


def encode_event(event: Event) -> bytes:
    """The event as one line of JSON (no newline), defaults left out."""
    return _ENCODER.encode(event)


def check_id(value: str, name: str) -> str:
    """Return `value` if it may be an id: 1 to 128 bytes of UTF-8, no control characters, no `/`.

    Raises:
        InvalidIdentifier: otherwise.
    """
    if _PLAIN_ID(value):
        return value
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidIdentifier(f"{name} is not valid Unicode") from error
    if not 1 <= size <= MAX_ID_BYTES:
        raise InvalidIdentifier(f"{name} must have 1 to {MAX_ID_BYTES} bytes, this one has {size}")
    if _FORBIDDEN_IN_ID(value):
        raise InvalidIdentifier(f"{name} may not contain '/' or control characters")
    return value


def to_ms(instant: datetime) -> int:
    """Epoch milliseconds of an aware datetime, rounded down."""
    since = instant - _EPOCH
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def from_ms(at: int) -> datetime:
    """The aware UTC datetime of epoch milliseconds."""
    return _EPOCH + at * _MILLISECOND


def effective_at(occurred_at: int, enqueued_at: int) -> int:
    """When an event counts, in epoch milliseconds: the client's clock, but never after the broker's."""
    return min(occurred_at, enqueued_at)


@lru_cache(maxsize=16_384)
def id_hash(value: str) -> int:
    """The unsigned 64-bit hash that stands for an item id or event id inside feature state (BLAKE2b)."""
    return event_hash(value)


def event_hash(event_id: str) -> int:
    """As `id_hash`, without remembering it: event ids do not come back, and would push the items' hashes out."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "little")


def partition_of(key: str, partition_count: int) -> int:
    """Kafka's default partitioner (murmur2 of the UTF-8 bytes), so every producer agrees on every tier."""
    return (_murmur2(key.encode()) & 0x7FFFFFFF) % partition_count


@dataclass(frozen=True, slots=True)
class EventSource:
    """One stream of events: a broker's hub or topic in one epoch, or one ingestion of history.

    `ours` says that our own hash chose the partitions, so a user's shard can be computed;
    `partition_counts` are the counts it has had, oldest first.
    """

    name: str
    partition_counts: tuple[int, ...]
    ours: bool = True

    def partitions(self) -> range:
        """Every partition number this source has ever had."""
        return range(max(self.partition_counts))

    def partitions_of(self, key: str) -> tuple[int, ...]:
        """The partitions that may hold `key`, ascending."""
        if not self.ours:
            return tuple(self.partitions())
        return tuple(sorted({partition_of(key, count) for count in self.partition_counts}))


_PLAIN_ID = re.compile(rf"[ -.0-~]{{1,{MAX_ID_BYTES}}}").fullmatch
"""Printable ASCII without the slash, which nearly every id is."""
_IDS = ("event_id", "user_id", "item_id", "session_id", "recommendation_id")
_PLAIN_IDS = re.compile(rf"[ -.0-~]{{1,{MAX_ID_BYTES}}}(?:\n[ -.0-~]{{1,{MAX_ID_BYTES}}}){{{len(_IDS) - 1}}}").fullmatch
"""All five, one a line: a line break inside an id makes more lines than ids."""
_FORBIDDEN_IN_ID = re.compile(r"[\x00-\x1f/\x7f-\x9f]").search
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC) - _EPOCH
_FIRST_INSTANT = datetime(1, 1, 2, tzinfo=UTC)
_LAST_INSTANT = datetime(9999, 12, 30, tzinfo=UTC)


def _convert[T](value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidEvent(str(error)) from error


def _checked(event: Event) -> Event:
    ids = event.event_id, event.user_id, event.item_id, event.session_id, event.recommendation_id
    if not _PLAIN_IDS("\n".join(["-" if one is None else one for one in ids])):
        for name in _IDS:
            value = getattr(event, name)
            if value is not None:
                check_id(value, name)
    _check_instant(event.occurred_at, "occurred_at")
    kind = event.event_type
    if kind in BEHAVIOUR:
        if event.user_id is None or event.item_id is None or event.changes is not None:
            _require(event, present=("user_id", "item_id"), absent=("changes",))
    elif kind is EventType.ITEM_UPDATED:
        _require(event, present=("item_id", "changes"), absent=("user_id",))
        arrived_at = event.item_changes().arrived_at
        if arrived_at is not UNSET:
            _check_instant(arrived_at, "arrived_at")
    elif kind is EventType.PREFERENCES_SET:
        _require(event, present=("user_id", "changes"), absent=("item_id",))
        event.preferences()
    elif event.user_id is None:
        _require(event, present=("changes",), absent=("item_id", "session_id", "recommendation_id", "context"))
        event.erasure()
    else:
        _require(event, present=("user_id",), absent=("item_id", "changes"))
    return event


def _check_instant(instant: datetime, name: str) -> None:
    # Compared in UTC: with an offset an instant may lie outside what UTC, or a shop's zone, has a date for.
    if not _FIRST_INSTANT <= instant <= _LAST_INSTANT:
        raise InvalidEvent(f"{name} must lie between {_FIRST_INSTANT.date()} and {_LAST_INSTANT.date()}")


def _require(event: Event, *, present: tuple[str, ...], absent: tuple[str, ...]) -> None:
    for name in present:
        if getattr(event, name) is None:
            raise InvalidEvent(f"{event.event_type} needs {name}")
    for name in absent:
        if getattr(event, name) is not None:
            raise InvalidEvent(f"{event.event_type} may not carry {name}")


def _murmur2(data: bytes) -> int:
    """Kafka's murmur2 (org.apache.kafka.common.utils.Utils), as an unsigned 32-bit number."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    length = len(data)
    state = (0x9747B28C ^ length) & mask
    whole = length - length % 4
    for start in range(0, whole, 4):
        block = int.from_bytes(data[start : start + 4], "little") * multiplier & mask
        block = (block ^ (block >> 24)) * multiplier & mask
        state = (state * multiplier & mask) ^ block
    if length != whole:
        state = (state ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
    state = (state ^ (state >> 13)) * multiplier & mask
    return state ^ (state >> 15)
