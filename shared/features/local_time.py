"""Many instants at once in a shop's time zone: `datetime.astimezone` for arrays."""

from __future__ import annotations

from datetime import MAXYEAR, UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from shared.events import from_ms, to_ms
from shared.features.aggregations import DAY_MS, Ints

_EPOCH_YEAR: Final = 1970
_THURSDAY: Final = 3
"""The weekday of the epoch's first day, Monday 0."""


def local_ms(at: Ints, time_zone: ZoneInfo) -> Ints:
    """int64[n]: what the shop's clock shows at each instant (epoch ms), as ms since 1970-01-01 00:00 of that clock."""
    years = at.astype("datetime64[ms]").astype("datetime64[Y]").astype(np.int64) + _EPOCH_YEAR
    local = np.empty_like(at)
    for year in np.unique(years).tolist():
        chosen = years == year
        since, offsets = _offsets_of(time_zone, year)
        instants = at[chosen]
        local[chosen] = instants + offsets[np.searchsorted(since, instants, side="right") - 1]
    return local


def time_of_day_ms(local: Ints) -> Ints:
    """int64[n] in [0, 24 h): how long past midnight, of what `local_ms` gave."""
    return local % DAY_MS


def weekdays(local: Ints) -> Ints:
    """int64[n]: Monday 0 to Sunday 6, of what `local_ms` gave."""
    return (local // DAY_MS + _THURSDAY) % 7


@lru_cache(maxsize=1024)
def _offsets_of(time_zone: ZoneInfo, year: int) -> tuple[Ints, Ints]:
    """The UTC offsets (ms) of one UTC year and the instants (epoch ms) since when each holds, ascending.

    Asked of each midnight, and where two differ by bisection: no zone has changed twice within a day.
    """
    # With an offset, the first and the last day that datetime knows may lie outside it.
    first = to_ms(datetime(year, 1, 2 if year == 1 else 1, tzinfo=UTC))
    last = to_ms(datetime(year, 12, 31, tzinfo=UTC)) + (0 if year == MAXYEAR else DAY_MS)
    since, offsets = [first], [_offset_ms(time_zone, first)]
    for midnight in range(first + DAY_MS, last + 1, DAY_MS):
        if _offset_ms(time_zone, midnight) == offsets[-1]:
            continue
        before, after = midnight - DAY_MS, midnight
        while after - before > 1:
            middle = (before + after) // 2
            if _offset_ms(time_zone, middle) == offsets[-1]:
                before = middle
            else:
                after = middle
        since.append(after)
        offsets.append(_offset_ms(time_zone, after))
    return np.array(since, dtype=np.int64), np.array(offsets, dtype=np.int64)


def _offset_ms(time_zone: ZoneInfo, at: int) -> int:
    offset = from_ms(at).astimezone(time_zone).utcoffset()
    assert offset is not None, "an aware datetime has one"
    return offset // timedelta(milliseconds=1)
