"""Rows of a table as events: each mapped cell checked, each row good or rejected with its column and reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.shop_time import zone_named
from batch.table_mapping import IGNORE, KINDS
from batch.table_mapping import Mapping as TableMapping
from batch.table_reading import Batch
from batch.table_times import UNREADABLE, read_numbers, read_times
from shared.errors import InvalidIdentifier
from shared.events import MAX_ID_BYTES, check_id

OLDEST_AT: Final = 631_152_000_000
"""1990-01-01: what lies before is a wrong unit or a placeholder."""
MOST_QUANTITY: Final = 10**6
MOST_CENTS: Final = 10**11
MOST_ORDER_LENGTH: Final = 200
LEFT_OUT: Final = "left out: the mapping ignores this event"

_PLAIN_ID: Final = rf"^[ -.0-~]{{1,{MAX_ID_BYTES}}}$"
_HASH_SEED: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Mapped:
    """The events of one batch's good rows: arrays of equal length n.

    `at` int64 epoch ms; `kind` int8, a place in `KINDS`; `user`, `item`, `session`, `order` and the item's `title`,
    `category`, `brand` text or null; `quantity` int32, 0 where there is none; `price` int64 cents, -1 where there is
    none; `id` text or null; `line` the row's place in its file.
    """

    at: NDArray[np.int64]
    kind: NDArray[np.int8]
    quantity: NDArray[np.int32]
    price: NDArray[np.int64]
    line: NDArray[np.int64]
    texts: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.at)


@dataclass(slots=True)
class Verdicts:
    """What is wrong with each row of a batch: the first finding counts."""

    size: int
    finding: NDArray[np.int16] = field(init=False)
    findings: list[tuple[str, str]] = field(default_factory=lambda: [("", "")])

    def __post_init__(self) -> None:
        self.finding = np.zeros(self.size, dtype=np.int16)

    def reject(self, where: NDArray[np.bool_], column: str, reason: str) -> None:
        """Give the reason to the rows of the mask that have none yet."""
        hit = where & (self.finding == 0)
        if hit.any():
            self.findings.append((column, reason))
            self.finding[hit] = len(self.findings) - 1

    @property
    def good(self) -> NDArray[np.bool_]:
        """The rows without a finding."""
        good: NDArray[np.bool_] = self.finding == 0
        return good


class EventMapper:
    """Maps batches of one table; `now` (epoch ms) is the instant after which nothing can have happened yet."""

    def __init__(self, mapping: TableMapping, now: int) -> None:
        self._part = mapping.events
        self._currency = mapping.shop.currency
        self._zone: ZoneInfo = zone_named(mapping.events.time_zone or mapping.shop.time_zone)
        self._now = now
        self._seen = SeenRows()

    def map(self, batch: Batch) -> tuple[Mapped, Verdicts]:
        """The good rows as events, and what is wrong with each of the others."""
        part, names = self._part, self._part.columns
        verdicts = Verdicts(batch.size)
        kind = self._kinds(batch, verdicts)
        ids = {name: self._ids(batch, name, verdicts) for name in ("user", "item")}
        at = self._times(batch, verdicts)
        quantity = self._quantities(batch, verdicts)
        price = self._prices(batch, verdicts)
        ids |= {name: self._ids(batch, name, verdicts) for name in ("session", "id")}
        for name in ("order", "title", "category", "brand"):
            ids[name] = self._text(batch, name)
        too_long = pc.greater(pc.utf8_length(ids["order"]), MOST_ORDER_LENGTH)
        verdicts.reject(pc.fill_null(too_long, fill_value=False).to_numpy(zero_copy_only=False),
                        self._named("order"), f"order is longer than {MOST_ORDER_LENGTH} characters")  # fmt: skip
        if part.duplicates == "reject" or names.id is not None:
            self._reject_repeated(verdicts, (at, kind, quantity, price), ids)
        good = verdicts.good
        keep = pa.array(good)
        mapped = Mapped(
            at=at[good], kind=kind[good], quantity=quantity[good], price=price[good], line=batch.lines[good],
            texts={name: cells.filter(keep) for name, cells in ids.items()},
        )  # fmt: skip
        return mapped, verdicts

    def _named(self, name: str) -> str:
        return getattr(self._part.columns, name, None) or name

    def _text(self, batch: Batch, name: str) -> pa.Array:
        """A mapped column or constant; null throughout where the mapping has neither."""
        column: str | None = getattr(self._part.columns, name, None)
        if column is not None:
            return batch.column(column)
        constant = self._part.constants.get(name)
        return pa.nulls(batch.size, pa.string()) if constant is None else pa.repeat(constant, batch.size)

    def _kinds(self, batch: Batch, verdicts: Verdicts) -> NDArray[np.int8]:
        cells = self._text(batch, "event").dictionary_encode()
        names = self._part.names or {kind: kind for kind in KINDS}
        known = [*KINDS, IGNORE]
        values = [known.index(names[one]) if one in names else -1 for one in cells.dictionary.to_pylist()]
        codes = np.array([*values, -2], dtype=np.int8)[_codes(cells)]
        column = self._named("event")
        verdicts.reject(codes == -2, column, "missing event")
        verdicts.reject(codes == -1, column, "event name that the mapping does not have")
        verdicts.reject(codes == len(KINDS), column, LEFT_OUT)
        return codes

    def _ids(self, batch: Batch, name: str, verdicts: Verdicts) -> pa.Array:
        cells = self._text(batch, name).dictionary_encode()
        column = self._named(name)
        if name in {"user", "item"} or (name == "id" and self._part.columns.id is not None):
            verdicts.reject(_codes(cells) < 0, column, f"missing {name}")
        # What a spreadsheet or a data frame made of a whole number (17850.0) loses its fraction.
        values = pc.replace_substring_regex(cells.dictionary, r"^(\d+)\.0+$", r"\1")
        wrong = _id_faults(values, name)
        codes = _codes(cells)
        for reason in dict.fromkeys(wrong.values()):
            marked = np.zeros(len(values) + 1, dtype=bool)
            marked[[place for place, why in wrong.items() if why == reason]] = True
            verdicts.reject(marked[codes], column, reason)
        return pa.DictionaryArray.from_arrays(cells.indices, values).dictionary_decode()

    def _times(self, batch: Batch, verdicts: Verdicts) -> NDArray[np.int64]:
        cells, column = self._text(batch, "time"), self._named("time")
        at = read_times(cells, self._part.time_formats, self._zone)
        missing = cells.is_null().to_numpy(zero_copy_only=False)
        verdicts.reject(missing, column, "missing time")
        verdicts.reject(at == UNREADABLE, column, f"time is not {' or '.join(self._part.time_formats)}")
        verdicts.reject(at < 0, column, "time before 1970 (a placeholder such as -1?)")
        verdicts.reject(at < OLDEST_AT, column, "time before 1990 (another unit than the mapping says?)")
        verdicts.reject(at > self._now, column, "time in the future (another unit or zone than the mapping says?)")
        return at

    def _quantities(self, batch: Batch, verdicts: Verdicts) -> NDArray[np.int32]:
        cells, column = self._text(batch, "quantity"), self._named("quantity")
        values = read_numbers(cells, self._part.decimal, self._part.thousands)
        given = cells.is_valid().to_numpy(zero_copy_only=False)
        verdicts.reject(given & np.isnan(values), column, "quantity is no number")
        verdicts.reject(given & (values <= 0), column, "quantity not positive")
        verdicts.reject(given & ((values % 1 != 0) | (values > MOST_QUANTITY)), column,
                        f"quantity is no whole number up to {MOST_QUANTITY:,}")  # fmt: skip
        return np.where(given & (values > 0) & (values <= MOST_QUANTITY), values, 0).astype(np.int32)

    def _prices(self, batch: Batch, verdicts: Verdicts) -> NDArray[np.int64]:
        cells, column = self._text(batch, "price"), self._named("price")
        given = cells.is_valid().to_numpy(zero_copy_only=False)
        cents, fault = cents_of(cells, self._part.decimal, self._part.thousands, self._part.price_scale, self._currency)
        for reason, where in fault.items():
            verdicts.reject(given & where, column, reason)
        return np.where(given & (cents >= 0), cents, -1)

    def _reject_repeated(
        self, verdicts: Verdicts, numbers: Sequence[NDArray[Any]], ids: Mapping[str, pa.Array]
    ) -> None:
        rows = np.flatnonzero(verdicts.good)
        if self._part.columns.id is not None:
            numbers = ()
            texts = [ids["id"]]
            reason = "event id of an earlier row"
        else:
            texts = [ids[name] for name in ("user", "item", "session", "order")]
            reason = "equals an earlier row"
        chosen = pa.array(rows)
        hashes = row_hashes([one[rows] for one in numbers], [one.take(chosen) for one in texts])
        repeated = np.zeros(verdicts.size, dtype=bool)
        repeated[rows] = self._seen.repeated(hashes)
        verdicts.reject(repeated, self._part.columns.id or "", reason)


def cents_of(
    cells: pa.Array, decimal: str, thousands: str, scale: float, currency: str
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.bool_]]]:
    """Prices as hundredths of the currency (-1 where there is none), and the rows at fault by reason."""
    values = read_numbers(cells, decimal, thousands, currency)
    cents = np.rint(values * scale)
    unread = np.isnan(cents)
    faults = {
        f'price is no number (decimal is "{decimal}", thousands "{thousands}")': unread,
        "price negative": cents < 0,
        "price above a billion": cents > MOST_CENTS,
    }
    return np.where(unread | (cents < 0) | (cents > MOST_CENTS), -1, cents).astype(np.int64), faults


def _codes(cells: pa.DictionaryArray) -> NDArray[np.int32]:
    """Places in the dictionary, -1 for null."""
    codes: NDArray[np.int32] = pc.fill_null(cells.indices, -1).to_numpy(zero_copy_only=False)
    return codes


def _id_faults(values: pa.Array, name: str) -> dict[int, str]:
    """Why values may not be ids, by their place."""
    plain = pc.match_substring_regex(values, _PLAIN_ID).to_numpy(zero_copy_only=False)
    faults = {}
    for place in np.flatnonzero(~plain.astype(bool)).tolist():
        value: str = values[place].as_py()
        try:
            check_id(value, name)
        except InvalidIdentifier:
            faults[place] = (
                f"{name} is longer than {MAX_ID_BYTES} bytes" if len(value.encode()) > MAX_ID_BYTES
                else f"{name} holds a / or a control character"
            )  # fmt: skip
    return faults


def row_hashes(numbers: Sequence[NDArray[Any]], texts: Sequence[pa.Array]) -> NDArray[np.uint64]:
    """64 bits a row over its numbers and texts (null is the empty text)."""
    size = len(numbers[0]) if numbers else len(texts[0])
    found = np.full(size, _HASH_SEED, dtype=np.uint64)
    columns = [one.astype(np.int64).view(np.uint64) for one in numbers]
    for one in texts:
        cells = one.dictionary_encode()
        values = cells.dictionary.to_numpy(zero_copy_only=False).astype(object)
        hashed = pd.util.hash_array(values, categorize=False) if len(values) else np.zeros(0, dtype=np.uint64)
        columns.append(np.append(hashed, np.uint64(0))[_codes(cells)])
    for column in columns:
        # One round of splitmix64 a column, so that equal values in other columns do not cancel out.
        found = (found ^ column) * np.uint64(0xBF58476D1CE4E5B9)
        found ^= found >> np.uint64(29)
        found = found * np.uint64(0x94D049BB133111EB)
        found ^= found >> np.uint64(32)
    return found


class SeenRows:
    """The rows that came before, by 64-bit hashes in sorted runs, which are merged when they are many."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def repeated(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of these rows equal an earlier one, of these or of those given before; all are kept."""
        unique, first = np.unique(hashes, return_index=True)
        again = np.ones(len(hashes), dtype=bool)
        again[first] = False
        for run in self._runs:
            places = np.searchsorted(run, hashes)
            again |= run[np.minimum(places, len(run) - 1)] == hashes
        if len(unique):
            self._runs.append(unique)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.union1d(self._runs[-1], last)
        return again
