"""A shop's clock: wall-clock times to instants and back, and moving history by whole weeks of that clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from shared.errors import ConfigurationError
from shared.events import from_ms, to_ms

MOST_WEEKS: Final = 5000
WEEK_MS: Final = 7 * 24 * 3600 * 1000
_MINUTE_MS: Final = 60_000


def zone_named(name: str) -> ZoneInfo:
    """The IANA zone. Raises ConfigurationError where there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(f"{name!r} is no IANA time zone; use a name like Europe/London") from error


def instants_of_walls(walls: NDArray[np.int64], zone: ZoneInfo) -> NDArray[np.int64]:
    """Epoch ms of wall-clock times (ms since 1970-01-01 00:00 on the wall), each in its own right.

    Of an hour that the clocks repeat the first is meant; a time that they leap over comes as much later (PEP 495).
    """
    return walls - _offsets(walls, lambda minute: from_ms(minute).replace(tzinfo=zone).utcoffset())


def walls_of_instants(at: NDArray[np.int64], zone: ZoneInfo) -> NDArray[np.int64]:
    """The wall-clock times (ms since 1970-01-01 00:00 on the wall) of instants in epoch ms."""
    return at + _offsets(at, lambda minute: from_ms(minute).astimezone(zone).utcoffset())


def shifted(at: NDArray[np.int64], zone: ZoneInfo, weeks: int) -> NDArray[np.int64]:
    """Instants moved by whole weeks on the wall clock, in epoch ms: local hour and weekday stay."""
    if weeks == 0:
        return at
    return instants_of_walls(walls_of_instants(at, zone) + weeks * WEEK_MS, zone)


def weeks_until(last_local_at: datetime, zone: ZoneInfo, now: datetime) -> int:
    """The largest number of whole weeks by which data may move and still end at or before `now` (an aware instant).

    `last_local_at` is the wall-clock time (naive) at which it ends.
    """
    weeks = (now.astimezone(zone).replace(tzinfo=None) - last_local_at) // timedelta(weeks=1) + 1
    while to_ms((last_local_at + timedelta(weeks=weeks)).replace(tzinfo=zone)) > to_ms(now):
        weeks -= 1
    return weeks


def chosen_weeks(text: str, last_local_at: Callable[[], datetime], zone: ZoneInfo, now: datetime) -> int:
    """What `--shift-weeks` asks for: a whole number, or `auto` for `weeks_until`. Raises ConfigurationError."""
    if text == "auto":
        return weeks_until(last_local_at(), zone, now)
    try:
        weeks = int(text)
    except ValueError as error:
        raise ConfigurationError(f"--shift-weeks is a whole number of weeks or auto, not {text!r}") from error
    if abs(weeks) > MOST_WEEKS:
        raise ConfigurationError(f"--shift-weeks {weeks} leaves this century; use auto to end the data now")
    return weeks


def local_time(at: int, zone: ZoneInfo) -> datetime:
    """The naive wall-clock time of an instant in epoch ms."""
    return from_ms(at).astimezone(zone).replace(tzinfo=None)


def _offsets(times: NDArray[np.int64], offset: Callable[[int], timedelta | None]) -> NDArray[np.int64]:
    """UTC offsets in ms, looked up once a minute that occurs: clocks change on whole minutes."""
    minutes, places = np.unique(times // _MINUTE_MS, return_inverse=True)
    found = [offset(int(minute) * _MINUTE_MS) or timedelta() for minute in minutes]
    return np.array([one // timedelta(milliseconds=1) for one in found], dtype=np.int64)[places]
