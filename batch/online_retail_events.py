"""Online Retail's order lines as events: purchases, and the catalogue as item_updated rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa

from batch.price_history import daily_price_changes
from batch.shop_time import WEEK_MS, instants_of_walls
from shared.events import EventType, from_ms
from shared.ingest.lake_table import EVENT_SCHEMA

_RULES = 1
"""Raise it when the same order lines become other events: the source's name hangs on it."""

OTHER_CATEGORY = "OTHER"
_LOOKS = frozenset({"ASSORTED", "CREAM", "DESIGN", "GOLD", "LARGE", "MEDIUM", "POLKADOT", "SMALL", "SPOT"})
_BEFORE_MS = 1


def history_tables(lines: pd.DataFrame, zone: ZoneInfo, shift_weeks: int) -> Iterator[pa.Table]:
    """Unnumbered rows (`EVENT_SCHEMA`), one table a UTC day, in time order.

    `lines` are the clean lines of `OrderLines`. Each line is a purchase with the invoice as its session. An item is
    announced one millisecond before its first purchase (title, category, price, arrival); when the modal price of
    one of its later shop-local days differs from the price it has, a price update follows one millisecond after its
    last purchase of that day, when the mode can be known. Stock is unknown and left out.
    """
    at = shifted_instants(lines["local_at"], zone, shift_weeks)
    purchases = _purchases(lines, at)
    events = pd.concat([_first_sights(lines, at), purchases, _price_changes(lines, at)], ignore_index=True)
    # At one instant what announces an item comes before what buys it; lines of an order stay in file order.
    events = events.sort_values("occurred_at", kind="stable", ignore_index=True)
    table = pa.Table.from_pandas(events[EVENT_SCHEMA.names], schema=EVENT_SCHEMA, preserve_index=False)
    days = events["occurred_at"].to_numpy() // (24 * 3600 * 1000)
    edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for start, end in pairwise(edges):
        if end > start:
            yield table.slice(start, end - start)


def shifted_instants(local_at: pd.Series[pd.Timestamp], zone: ZoneInfo, shift_weeks: int) -> pd.Series[int]:
    """Wall-clock times moved by whole weeks on the wall clock, as epoch ms: local hour and weekday stay."""
    walls = local_at.to_numpy().astype("datetime64[ms]").astype(np.int64) + shift_weeks * WEEK_MS
    return pd.Series(instants_of_walls(walls, zone), index=local_at.index)


def content_fingerprint(lines: pd.DataFrame, zone: ZoneInfo, shift_weeks: int, partition_count: int) -> str:
    """12 hex digits of BLAKE2b over the clean lines in order and everything else the events are made of."""
    digest = blake2b(f"{_RULES}|{zone.key}|{shift_weeks}|{partition_count}|{len(lines)}".encode(), digest_size=6)
    hashes = pd.util.hash_pandas_object(lines, index=False).to_numpy()
    digest.update(hashes.astype("<u8").tobytes())
    return digest.hexdigest()


def categories_of(titles: Iterable[str]) -> dict[str, str]:
    """One category a title: the rightmost of its words that is a head noun in this shop, else OTHER.

    English puts the head noun last, so a word is one when it ends at least 10 titles and stands last in at least 30%
    of the titles that have it: colours and patterns end titles too, but mostly stand before others. `_LOOKS` are the
    few that pass all the same. Plurals count as their singular.
    """
    words = {title: _words(title) for title in dict.fromkeys(titles)}
    last = Counter(found[-1] for found in words.values() if found)
    anywhere = Counter(word for found in words.values() for word in set(found))
    heads = {word for word, count in last.items() if count >= 10 and count >= 0.3 * anywhere[word]} - _LOOKS
    return {
        title: next((word for word in reversed(found) if word in heads), OTHER_CATEGORY)
        for title, found in words.items()
    }


def _words(title: str) -> list[str]:
    """Upper-case words of three letters or more, plurals folded: BOXES -> BOX, CANDLES -> CANDLE, GLASS as it is."""
    folded = []
    for word in re.findall(r"[A-Z]{3,}", title.upper()):
        if word.endswith(("XES", "SSES", "SHES", "CHES")):
            folded.append(word[:-2])
        elif word.endswith("S") and not word.endswith("SS") and len(word) > 3:
            folded.append(word[:-1])
        else:
            folded.append(word)
    return folded


def _purchases(lines: pd.DataFrame, at: pd.Series[int]) -> pd.DataFrame:
    keys = zip(lines["invoice"], lines["code"], lines["line"], strict=True)
    return _events(
        event_id=[_event_id("purchase", invoice, code, str(line)) for invoice, code, line in keys],
        event_type=EventType.PURCHASE.value,
        occurred_at=at,
        user_id=lines["customer"],
        item_id=lines["code"],
        session_id=lines["invoice"],
        quantity=lines["quantity"],
        price_cents=lines["price_cents"],
    )


def _first_sights(lines: pd.DataFrame, at: pd.Series[int]) -> pd.DataFrame:
    """Title and price of the first line in time, the earlier in the file where an instant has several."""
    first = lines.assign(at=at).sort_values("at", kind="stable").drop_duplicates("code")
    titles = first["title"].where(first["title"] != "", first["code"])
    categories = categories_of(titles)
    seen_at = first["at"] - _BEFORE_MS
    changes = [
        _json(title=title, categories=[categories[title]], price_cents=price, arrived_at=from_ms(at).isoformat())
        for title, price, at in zip(titles, first["price_cents"].tolist(), seen_at.tolist(), strict=True)
    ]
    return _events(
        event_id=[_event_id("item", code, "first") for code in first["code"]],
        event_type=EventType.ITEM_UPDATED.value,
        occurred_at=seen_at,
        item_id=first["code"],
        changes=changes,
    )


def _price_changes(lines: pd.DataFrame, at: pd.Series[int]) -> pd.DataFrame:
    sales = pd.DataFrame(
        {"item": lines["code"], "day": lines["local_at"].dt.date, "price_cents": lines["price_cents"], "at": at}
    )
    rows = [(code, day.isoformat(), price, last_at + 1) for code, day, price, last_at in daily_price_changes(sales)]
    return _events(
        event_id=[_event_id("item", code, day) for code, day, _, _ in rows],
        event_type=EventType.ITEM_UPDATED.value,
        occurred_at=[at for *_, at in rows],
        item_id=[code for code, *_ in rows],
        changes=[_json(price_cents=price) for _, _, price, _ in rows],
    )


def _events(*, event_type: str, **columns: Any) -> pd.DataFrame:
    filled = {name: pd.Series(column).reset_index(drop=True) for name, column in columns.items()}
    frame = pd.DataFrame({name: filled.get(name) for name in EVENT_SCHEMA.names}, dtype=object)
    frame["occurred_at"] = frame["occurred_at"].astype("int64")
    return frame.assign(event_type=event_type)


def _event_id(*parts: str) -> str:
    return blake2b("|".join(parts).encode(), digest_size=16).hexdigest()


def _json(**changes: Any) -> str:
    return json.dumps(changes, ensure_ascii=False, separators=(",", ":"))
