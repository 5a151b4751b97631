"""The shop's days: when each begins in shop-local time, and how much of the traffic it carries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from batch.synthetic_shop.streams import random_stream
from shared.events import from_ms, to_ms

# Monday to Sunday, and hour by hour: the shape of real shops' click streams, in shop-local time.
_WEEKDAY = (1.12, 1.14, 1.10, 1.06, 0.96, 0.76, 0.86)
_HOUR = (
    0.4,
    0.3,
    0.2,
    0.15,
    0.15,
    0.3,
    0.9,
    2.0,
    3.2,
    4.2,
    4.8,
    5.0,
    5.6,
    5.2,
    4.8,
    4.7,
    4.9,
    5.4,
    6.2,
    7.2,
    7.8,
    7.0,
    4.6,
    2.0,
)

IMPORT_SPAN_MS = 30 * 60_000
"""The nightly import changes the catalogue within this time after midnight; no visit starts before it has ended."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days of a history: `starts_at[d]` to `stops_at[d]` (epoch ms), Monday-based weekdays and traffic weights.

    `traffic` is float64 (days,), relative to an average day; the last day may end early, at `ends_at`.
    """

    starts_at: npt.NDArray[np.int64]
    stops_at: npt.NDArray[np.int64]
    weekdays: npt.NDArray[np.int64]
    traffic: npt.NDArray[np.float64]

    @property
    def days(self) -> int:
        """Number of days."""
        return len(self.starts_at)

    @property
    def ends_at(self) -> int:
        """No event happens at or after this instant."""
        return int(self.stops_at[-1])

    def draw_times(self, day: int, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """`count` starts of visits (epoch ms) within the day by the rhythm of hours, none before the import ended."""
        shares = np.array(_HOUR)
        shares[0] /= 2
        hours = np.searchsorted(np.cumsum(shares) / shares.sum(), random.random(count), side="right")
        within = random.random(count)
        offset_ms = (hours * 3_600_000 + within * 3_600_000).astype(np.int64)
        first_hour = hours == 0
        offset_ms[first_hour] = (IMPORT_SPAN_MS * (1 + within[first_hour])).astype(np.int64)
        times: npt.NDArray[np.int64] = self.starts_at[day] + offset_ms
        if day + 1 == self.days:
            return times  # what lies beyond the end of an unfinished day has not happened yet
        within_day: npt.NDArray[np.int64] = np.minimum(times, self.stops_at[day] - 60_000)  # the day of 23 hours
        return within_day


def last_midnight(now: datetime, zone: ZoneInfo) -> int:
    """The newest shop-local midnight at or before `now`, in epoch ms."""
    return _midnight(now.astimezone(zone).date(), zone)


def build_calendar(seed: int, days: int, ends_at: int, zone: ZoneInfo) -> Calendar:
    """The `days` shop-local days of which the last holds the millisecond before `ends_at` (epoch ms)."""
    last = from_ms(ends_at - 1).astimezone(zone).date()
    dates = [last - timedelta(days=back) for back in range(days - 1, -1, -1)]
    starts = np.array([_midnight(day, zone) for day in dates], np.int64)
    midnight_after = _midnight(last + timedelta(days=1), zone)
    weekdays = np.array([day.weekday() for day in dates], np.int64)
    noise = random_stream(seed, "calendar").normal(0, 0.05, days)
    season = 1 + 0.08 * np.sin(np.arange(days) / 9.0)
    return Calendar(
        starts_at=starts,
        stops_at=np.append(starts[1:], ends_at),
        weekdays=weekdays,
        traffic=np.array(_WEEKDAY)[weekdays]
        * np.exp(noise)
        * season
        * _fraction(starts[-1], ends_at, midnight_after, days),
    )


def _fraction(start: int, end: int, midnight: int, days: int) -> npt.NDArray[np.float64]:
    fraction = np.ones(days)
    fraction[-1] = max(1e-3, (end - start) / (midnight - start))
    return fraction


def _midnight(day: date, zone: ZoneInfo) -> int:
    return to_ms(datetime.combine(day, time(), zone))
