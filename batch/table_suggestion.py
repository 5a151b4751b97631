"""A mapping for a table that nobody described yet: columns are guessed by their names and by what stands in them."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.input_files import InputFile, UnreadableInput
from batch.table_events import OLDEST_AT
from batch.table_mapping import IGNORE, KINDS, Reading
from batch.table_reading import Batch, open_rows, separator_of
from batch.table_times import UNREADABLE, read_numbers, read_times

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "time": ("timestamp", "eventtime", "time", "datetime", "date", "createdat", "occurredat", "ts", "invoicedate",
             "orderdate", "at", "zeit", "datum"),
    "user": ("userid", "user", "visitorid", "customerid", "customer", "clientid", "shopperid", "memberid", "visitor",
             "uid", "accountid", "kunde", "kundennummer"),
    "item": ("itemid", "productid", "item", "product", "sku", "stockcode", "articleid", "asin", "parentasin", "movieid",
             "productcode", "artikel", "artikelnummer"),
    "event": ("eventtype", "event", "action", "eventname", "type", "behavior", "behaviour", "activity", "ereignis",
              "aktion"),
    "session": ("usersession", "sessionid", "session", "visitid"),
    "quantity": ("quantity", "qty", "amountofitems", "units", "count", "menge"),
    "price": ("price", "unitprice", "pricecents", "itemprice", "amount", "preis"),
    "id": ("eventid", "uuid", "messageid"),
    "order": ("orderid", "order", "invoiceno", "invoice", "transactionid", "basketid", "bestellung"),
    "title": ("title", "productname", "itemname", "description", "name", "producttitle", "titel"),
    "category": ("categorycode", "category", "categorypath", "categoryname", "categoryid", "department", "kategorie"),
    "brand": ("brand", "brandname", "manufacturer", "vendor", "marke"),
}  # fmt: skip
"""Lower-case letters and digits of a column's name; the first that a file has is taken."""
_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "view": ("view", "pv", "pageview", "productview", "click", "detail", "impression", "viewitem", "viewed", "browse",
             "gesehen", "angesehen"),
    "cart": ("cart", "addtocart", "addcart", "basket", "addtobasket", "added", "korb", "warenkorb"),
    "remove_from_cart": ("removefromcart", "removecart", "deletefromcart", "removed"),
    "purchase": ("purchase", "buy", "transaction", "order", "sale", "checkout", "purchased", "bought", "paid",
                 "gekauft", "kauf"),
}  # fmt: skip
_MEANING: Final = {synonym: kind for kind, synonyms in _SYNONYMS.items() for synonym in synonyms}
_PATTERNS: Final = (
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d", "%Y%m%d%H%M%S",
    "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%d-%m-%Y",
)  # fmt: skip
"""Tried in this order, days before months: where every day is at most 12 both read, and a comment says so."""
_EPOCHS: Final = ("epoch_s", "epoch_ms", "epoch_us", "epoch_ns")
_UTC: Final = ZoneInfo("UTC")
_SAMPLE_BYTES: Final = 1 << 20
_MOST_EVENT_NAMES: Final = 40


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A mapping file's text (TOML) and the values it stands for."""

    text: str
    document: dict[str, Any]


def suggest_mapping(file: InputFile, now: int) -> Suggestion:
    """Guess from the first rows. Raises UnreadableInput when no column looks like a time, a user or an item."""
    reading = _reading(file)
    names, sample = _sample(file, reading)
    if sample.size == 0:
        raise UnreadableInput(f"{file.address} holds no readable rows")
    chosen = _by_name(names)
    time_format, chosen["time"] = _time(sample, names, chosen.get("time"), now)
    missing = [name for name in ("time", "user", "item") if not chosen.get(name)]
    if missing:
        raise UnreadableInput(
            f"{file.address}: no column looks like {' or '.join(missing)} (it has {', '.join(names)}); write "
            "the mapping by hand, docs/ml.md shows one"
        )
    events: dict[str, Any] = {
        name: value for name, value in msgspec.to_builtins(reading).items()
        if name in {"separator", "encoding"} and value not in {"", "utf-8"}
    }  # fmt: skip
    events["time_format"] = time_format
    if "price" in chosen:
        events |= _price(sample, chosen["price"])
    if "event" not in chosen:
        by_content = _event_by_content(sample, [name for name in names if name not in chosen.values()])
        chosen |= {} if by_content is None else {"event": by_content}
    events["columns"] = {name: chosen[name] for name in _NAMES if chosen.get(name)}
    if "event" in chosen:
        events["names"] = _event_names(sample, chosen["event"])
    else:
        events["constants"] = {"event": "purchase" if {"price", "quantity", "order"} & set(chosen) else "view"}
    if "category" in chosen:
        separator = _category_separator(sample, chosen["category"])
        events |= {"category_separator": separator} if separator else {}
    shop = {"name": re.sub(r"\W+", " ", file.name.partition(".")[0]).strip() or "shop", "time_zone": "UTC",
            "currency": "XXX"}  # fmt: skip
    document = {"shop": shop, "events": events}
    return Suggestion(_toml(document, _remarks(time_format)), document)


def _reading(file: InputFile) -> Reading:
    if file.suffixes[-1:] not in {(".csv",), (".tsv",), (".txt",)}:
        return Reading()
    with file.open() as raw:
        head = raw.read(_SAMPLE_BYTES)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        try:
            head[: head.rfind(b"\n") + 1].decode("utf-8")
            encoding = "utf-8"
        except UnicodeDecodeError:
            encoding = "latin-1"
    first = head.decode(encoding, errors="replace").partition("\n")[0]
    separator = separator_of(first)
    return Reading(encoding=encoding, separator="" if separator == "," else separator)


def _sample(file: InputFile, reading: Reading) -> tuple[list[str], Batch]:
    source = open_rows(file, reading, {})
    batch = next(source.batches, Batch(0, np.zeros(0, np.int64), lambda _: pa.array([], pa.string()), lambda _: [], ()))
    names = [name for name in source.names if name]
    if source.names == ("json",):
        seen: Counter[str] = Counter()
        for place in range(min(1000, batch.size)):
            seen.update(_paths(json.loads(batch.row(place)[0])))
        names = [name for name, _ in seen.most_common()]
    return names, batch


def _paths(value: Mapping[str, Any], lead: str = "") -> Iterable[str]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _paths(inner, f"{lead}{name}.")
        elif not isinstance(inner, list):
            yield f"{lead}{name}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _by_name(names: Sequence[str]) -> dict[str, str]:
    """Field -> column. What exactly equals a hint comes before what ends with one; a column serves one field."""
    chosen: dict[str, str] = {}
    tests: tuple[Callable[[str, str], bool], ...] = (
        str.__eq__,
        lambda name, hint: len(hint) >= 3 and hint != "name" and name.endswith(hint),
    )
    for matches in tests:
        for field, hints in _NAMES.items():
            free = [name for name in names if name not in chosen.values()]
            found = (name for hint in hints for name in free if matches(_plain(name), hint))
            if field not in chosen and (first := next(found, None)) is not None:
                chosen[field] = first
    return chosen


def _time(sample: Batch, names: Sequence[str], named: str | None, now: int) -> tuple[str, str]:
    """(format, column) that read most cells as instants between 1990 and now; the named column is tried first."""
    best = (0.0, "", "")
    for column in [named] if named else names:
        cells = sample.column(column).slice(0, 2000)
        for form in ("iso", *_EPOCHS, *_PATTERNS):
            at = read_times(cells, (form,), _UTC)
            share = float(np.mean((at != UNREADABLE) & (at >= OLDEST_AT) & (at <= now))) if len(at) else 0.0
            if share > best[0]:
                best = (share, form, column)
    if best[0] < 0.5 and named:
        return _time(sample, [name for name in names if name != named], None, now)
    return (best[1], best[2]) if best[0] >= 0.5 else ("", "")


def _event_names(sample: Batch, column: str) -> dict[str, str]:
    counted = pc.value_counts(sample.column(column).drop_null()).to_pylist()
    values = [one["values"] for one in sorted(counted, key=lambda one: -one["counts"])][:_MOST_EVENT_NAMES]
    return {value: _MEANING.get(_plain(value), IGNORE) for value in values}


def _event_by_content(sample: Batch, names: Sequence[str]) -> str | None:
    """The column with the most values that sound like events, where one has two at least and not many others."""
    heard = {}
    for name in names:
        values = pc.unique(sample.column(name)).drop_null().to_pylist()
        if len(values) <= _MOST_EVENT_NAMES:
            heard[name] = sum(_plain(value) in _MEANING for value in values)
    best = max(heard, key=lambda name: heard[name], default=None)
    return best if best is not None and heard[best] >= 2 else None


def _price(sample: Batch, column: str) -> dict[str, Any]:
    cells = sample.column(column).drop_null().slice(0, 2000)
    choices = ((".", ""), (",", ""), (",", "."), (".", ","))
    shares = [int(np.sum(~np.isnan(read_numbers(cells, *choice)))) for choice in choices]
    decimal, thousands = choices[int(np.argmax(shares))]
    found: dict[str, Any] = {"decimal": decimal} if decimal != "." else {}
    found |= {"thousands": thousands} if thousands else {}
    return found | ({"price_scale": 1} if _plain(column).endswith("cents") else {})


def _category_separator(sample: Batch, column: str) -> str:
    cells = sample.column(column).drop_null().slice(0, 2000).to_pylist()
    counted = {one: sum(one in cell for cell in cells) for one in (" > ", ">", "|", "/", ".")}
    best = max(counted, key=lambda one: counted[one])
    return best if cells and counted[best] > len(cells) / 5 else ""


def _remarks(time_format: str) -> dict[str, str]:
    remarks = {
        "time_zone": "the shop's IANA zone; also that of times without an offset",
        "currency": "three letters of ISO 4217; XXX is none",
        "names": f"{', '.join(KINDS)}, or {IGNORE}",
        "price_scale": "hundredths of the currency in one unit of the column",
    }
    if time_format.startswith("%d/"):
        remarks["time_format"] = "days first? where no day is above 12, months first reads as well"
    return remarks


def _toml(document: Mapping[str, Any], remarks: Mapping[str, str]) -> str:
    out = io.StringIO()
    out.write("# Suggested by python -m batch.ingest_events --format table; read it through before it is used.\n")
    for title, part in document.items():
        _toml_part(out, title, part, remarks)
    return out.getvalue()


def _toml_part(out: io.StringIO, title: str, part: Mapping[str, Any], remarks: Mapping[str, str]) -> None:
    remark = f"  # {remarks[last]}" if (last := title.rpartition(".")[2]) in remarks else ""
    out.write(f"\n[{title}]{remark}\n")
    for name, value in part.items():
        if not isinstance(value, dict):
            key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
            told = f"  # {remarks[name]}" if name in remarks else ""
            out.write(f"{key} = {json.dumps(value, ensure_ascii=False)}{told}\n")
    for name, value in part.items():
        if isinstance(value, dict):
            _toml_part(out, f"{title}.{name}", value, remarks)
