"""The mapping file: how the columns of a shop's own table become events and catalogue rows."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import yaml
from msgspec import Struct

from batch.shop_time import zone_named
from batch.table_times import check_format
from shared.errors import ConfigurationError
from shared.events import EventType
from shared.ingest.lake_manifest import ShopSettings

IGNORE: Final = "ignore"
"""What a value of the event column is mapped to whose rows are left out on purpose."""
KINDS: Final = tuple(
    kind.value for kind in (EventType.VIEW, EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE)
)
NULLS: Final = ("", "NULL", "null", "NaN", "nan", "None", "\\N", "N/A")


class ShopPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[shop]: as `ShopSettings`, which see."""

    name: str = "shop"
    time_zone: str = "UTC"
    currency: str = "XXX"
    bought_window_days: int = 30
    positives: tuple[str, ...] = ("purchase", "cart")


class Reading(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a file is read and its cells are understood; the same for events and items.

    `separator` empty: the one the first line has most of. `header` names the columns of a file without a first line
    of names. `time_format`: iso, epoch_s, epoch_ms, epoch_us, epoch_ns or a strptime pattern; of several the first
    that reads a cell counts. `time_zone` is that of times without an offset (empty: the shop's). `price_scale` is how
    many hundredths of the currency one unit of the price column is: 100 for 12.50, 1 for 1250.
    """

    separator: str = ""
    encoding: str = "utf-8"
    quote: str = '"'
    header: tuple[str, ...] = ()
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", " ", "'"] = ""
    time_format: str | tuple[str, ...] = "iso"
    time_zone: str = ""
    price_scale: float = 100
    null_values: tuple[str, ...] = NULLS

    @property
    def time_formats(self) -> tuple[str, ...]:
        """One or several, as a tuple."""
        return (self.time_format,) if isinstance(self.time_format, str) else self.time_format


class EventColumns(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """[events.columns]: which column holds what; in JSON lines a dotted path reaches into objects.

    `id` is an event id of the shop's own. `order` is kept as the event's context. `title`, `category` and `brand`
    describe the item where no table of items does.
    """

    time: str
    user: str
    item: str
    event: str | None = None
    session: str | None = None
    quantity: str | None = None
    price: str | None = None
    id: str | None = None
    order: str | None = None
    title: str | None = None
    category: str | None = None
    brand: str | None = None


class EventsPart(Reading, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[events]: the table of what happened, one event a row.

    `names` says which of our event types each value of the event column is, or "ignore". `constants` gives a field
    (event, user, session, quantity, price) one value for all rows. `category_separator` cuts the path of a category.
    `duplicates` = "reject" refuses a row that equals an earlier one in everything that is mapped.
    """

    columns: EventColumns
    names: dict[str, str] = {}
    constants: dict[str, str] = {}
    category_separator: str = ""
    duplicates: Literal["reject", "keep"] = "reject"


class ItemColumns(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """[items.columns]: `categories` is one column with a path or several columns from root to leaf."""

    id: str
    title: str | None = None
    description: str | None = None
    categories: str | tuple[str, ...] = ()
    brand: str | None = None
    price: str | None = None
    stock: str | None = None
    hidden: str | None = None
    arrived_at: str | None = None


class ItemsPart(Reading, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[items]: the table of products, one a row; `attributes` are columns that are kept under their names."""

    columns: ItemColumns
    category_separator: str = ""
    attributes: tuple[str, ...] = ()


class Mapping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole mapping file."""

    events: EventsPart
    shop: ShopPart = ShopPart()
    items: ItemsPart | None = None

    def shop_settings(self) -> ShopSettings:
        """What the lake manifest keeps of the shop."""
        return msgspec.convert(msgspec.to_builtins(self.shop), ShopSettings)


def read_mapping(path: Path) -> Mapping:
    """A mapping from TOML (.toml) or YAML (.yaml, .yml). Raises ConfigurationError that names file and place."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no mapping file {path}; --dry-run without --mapping suggests one"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    try:
        document: Any = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return mapping_of(document, str(path))


def mapping_of(document: object, name: str) -> Mapping:
    """A mapping from the mapping file's values; `name` is the file's, for errors. Raises ConfigurationError."""
    try:
        mapping = msgspec.convert(document, Mapping)
        _check(mapping)
    except (msgspec.ValidationError, ConfigurationError) as error:
        raise ConfigurationError(f"{name}: {error}") from error
    return mapping


def _check(mapping: Mapping) -> None:
    events, shop = mapping.events, mapping.shop
    zone_named(shop.time_zone)
    for title, part in (("events", events), ("items", mapping.items)):
        if part is not None:
            _check_reading(title, part)
    if (events.columns.event is None) == ("event" not in events.constants):
        raise ConfigurationError("give events.columns.event or events.constants.event, and not both")
    unknown = set(events.constants) - {"event", "user", "session", "quantity", "price"}
    if unknown:
        raise ConfigurationError(f"events.constants may not hold {', '.join(sorted(unknown))}")
    for value, kind in events.names.items():
        if kind not in {*KINDS, IGNORE}:
            raise ConfigurationError(f"events.names.{value} is {kind!r}; it must be {', '.join(KINDS)} or {IGNORE}")
    if not (len(shop.currency) == 3 and shop.currency.isascii() and shop.currency.isupper()):
        raise ConfigurationError(f"shop.currency is {shop.currency!r}; write three capitals such as EUR")
    if shop.bought_window_days < 0 or not shop.positives or set(shop.positives) - set(KINDS):
        raise ConfigurationError(f"shop.bought_window_days is 0 or more, shop.positives some of {', '.join(KINDS)}")


def _check_reading(title: str, part: Reading) -> None:
    if part.time_zone:
        zone_named(part.time_zone)
    for one in part.time_formats:
        check_format(one, f"{title}.time_format")
    if not part.time_formats:
        raise ConfigurationError(f"{title}.time_format is empty; write iso, epoch_ms or a strptime pattern")
    if len(part.separator) > 1 or len(part.quote) != 1:
        raise ConfigurationError(f"{title}.separator and {title}.quote are one character each")
    if part.decimal == part.thousands:
        raise ConfigurationError(f"{title}.decimal and {title}.thousands must differ")
    if not 0 < part.price_scale <= 10**6:
        raise ConfigurationError(f"{title}.price_scale must lie above 0 and at most 1,000,000")
    try:
        "".encode(part.encoding)
    except LookupError as error:
        raise ConfigurationError(f"{title}.encoding {part.encoding!r} is unknown; use utf-8 or latin-1") from error
