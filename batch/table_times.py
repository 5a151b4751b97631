"""Cells of a column as instants and as numbers, a whole batch at once."""

from __future__ import annotations

import re
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.shop_time import instants_of_walls
from shared.errors import ConfigurationError

UNREADABLE: Final = np.iinfo(np.int64).min
"""Stands for an instant that could not be read."""

_EPOCHS: Final = {"epoch_s": (1000, 1), "epoch_ms": (1, 1), "epoch_us": (1, 1000), "epoch_ns": (1, 1_000_000)}
_WHOLE: Final = r"^[+-]?(\d{1,15}|1\d{15,18})$"
_FRACTION: Final = r"^[+-]?\d{1,12}\.\d{1,9}$"
_UTC_WORD: Final = r"\s*(UTC|GMT)$"
_OFFSET: Final = r":\d.*(Z|z|[+-]\d{2}(:?\d{2})?)$"
_NS_A_MS: Final = 1_000_000


def check_format(name: str, where: str) -> None:
    """Raises ConfigurationError unless it is a known name or a strptime pattern; `where` names its place."""
    if name == "iso" or name in _EPOCHS:
        return
    try:
        if "%" not in name:
            raise ValueError("it has no %")  # noqa: TRY301 - one message for both
        pd.to_datetime(pd.Series(["2"]), format=name, errors="coerce")
    except (ValueError, re.error) as error:
        raise ConfigurationError(
            f"{where} {name!r} is neither iso, {', '.join(_EPOCHS)} nor a pattern such as %d.%m.%Y %H:%M: {error}"
        ) from error


def read_times(cells: pa.Array, formats: tuple[str, ...], zone: ZoneInfo) -> NDArray[np.int64]:
    """Epoch ms of each cell of text, `UNREADABLE` where it is null or no format reads it.

    Formats are tried in order; `zone` is that of cells without an offset of their own.
    """
    found = np.full(len(cells), UNREADABLE, dtype=np.int64)
    for name in formats:
        open_ = np.flatnonzero((found == UNREADABLE) & cells.is_valid().to_numpy(zero_copy_only=False))
        if len(open_) == 0:
            break
        rest = cells.take(pa.array(open_))
        found[open_] = _epoch(rest, *_EPOCHS[name]) if name in _EPOCHS else _dated(rest, name, zone)
    return found


def _epoch(cells: pa.Array, factor: int, divisor: int) -> NDArray[np.int64]:
    found = np.full(len(cells), UNREADABLE, dtype=np.int64)
    whole = pc.match_substring_regex(cells, _WHOLE)
    numbers = pc.cast(pc.replace_substring_regex(cells.filter(whole), r"^\+", ""), pa.int64()).to_numpy()
    # A number too large for its unit is no instant of this millennium, and must not wrap around into one.
    sane = np.where(np.abs(numbers) < 2**62 // factor, numbers, 0)
    found[whole.to_numpy(zero_copy_only=False)] = sane * factor // divisor
    parted = pc.match_substring_regex(cells, _FRACTION)
    values = pc.cast(pc.replace_substring_regex(cells.filter(parted), r"^\+", ""), pa.float64()).to_numpy()
    found[parted.to_numpy(zero_copy_only=False)] = np.floor(values * factor / divisor + 1e-6).astype(np.int64)
    return found


def _dated(cells: pa.Array, name: str, zone: ZoneInfo) -> NDArray[np.int64]:
    if name == "iso":
        cells = pc.replace_substring_regex(cells, _UTC_WORD, "Z")
        pattern = "ISO8601"
        aware = pc.match_substring_regex(cells, _OFFSET).to_numpy(zero_copy_only=False)
    else:
        pattern = name
        aware = np.full(len(cells), "%z" in name or "%Z" in name)
    texts = pd.Series(cells.to_numpy(zero_copy_only=False), dtype=object)
    times = pd.DatetimeIndex(pd.to_datetime(texts, format=pattern, errors="coerce", utc=True)).as_unit("ns")
    missing = np.asarray(times.isna())
    found = np.where(missing, 0, times.tz_localize(None).to_numpy().astype(np.int64) // _NS_A_MS)
    wall = ~aware & ~missing
    found[wall] = instants_of_walls(found[wall], zone)
    found[missing] = UNREADABLE
    return found


def read_numbers(cells: pa.Array, decimal: str, thousands: str, unit: str = "") -> NDArray[np.float64]:
    """Each cell of text as a number, NaN where it is null or none; currency signs and `unit` around it are allowed."""
    around = rf"[\s\p{{Sc}}]*(?:{re.escape(unit)})?[\s\p{{Sc}}]*" if unit else r"[\s\p{Sc}]*"
    bare = pc.replace_substring_regex(pc.replace_substring_regex(cells, f"^{around}", ""), f"{around}$", "")
    whole = rf"\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d+" if thousands else r"\d+"
    good = pc.match_substring_regex(bare, rf"^[+-]?(?:(?:{whole})(?:{re.escape(decimal)}\d*)?|{re.escape(decimal)}\d+)"
                                          r"(?:[eE][+-]?\d{1,2})?$")  # fmt: skip
    good = pc.fill_null(good, fill_value=False)
    plain = bare.filter(good)
    if thousands:
        plain = pc.replace_substring(plain, thousands, "")
    plain = pc.replace_substring_regex(pc.replace_substring(plain, decimal, "."), r"^\+", "")
    found = np.full(len(cells), np.nan)
    found[good.to_numpy(zero_copy_only=False)] = pc.cast(plain, pa.float64()).to_numpy(zero_copy_only=False)
    return found
