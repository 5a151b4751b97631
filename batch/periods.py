"""The three consecutive periods of training and evaluation: fit, label, test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from shared.errors import ConfigurationError
from shared.events import from_ms, to_ms

Span = Literal["fit", "fit_label", "all"]
SPANS: Final[tuple[Span, ...]] = ("fit", "fit_label", "all")
"""What retrieval is fitted on: before the label period, before the test period, everything."""

_LONGEST_DAYS: Final = 28
_SHORTEST_DAYS: Final = 7
_ORDINARY_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Periods:
    """The ends of fit, label and test in epoch ms, ascending and exclusive, each a shop-local midnight.

    An event belongs to the period its enqueued_at falls in; fit reaches back to the first event.
    """

    fit_end_at: int
    label_end_at: int
    test_end_at: int

    def span_end_at(self, span: Span) -> int:
        """The exclusive end of what retrieval of this span may know, epoch ms."""
        return {"fit": self.fit_end_at, "fit_label": self.label_end_at, "all": self.test_end_at}[span]


def choose_periods(enqueued_at: NDArray[np.int64], time_zone: str) -> Periods:
    """The periods of events that were enqueued at these instants [n] (epoch ms, any order).

    Label and test last T days each: an eighth of the days the data spans, at least 7 and at most 28, but never more
    than a quarter of them. The days counted run from the first to the last ordinary one, ordinary being a day with
    at least a twentieth of the events of the median day that has any: a few clicks weeks after the bulk of the data
    would else make a test period of their own. They stand in the test period, which ends after the newest event.
    Raises ConfigurationError when the data spans fewer than 3 days or the time zone is unknown.
    """
    if len(enqueued_at) == 0:
        raise ConfigurationError("There are no interactions to split into periods; ingest or generate events first.")
    zone = _zone(time_zone)
    first, last = (_local_day(int(at), zone) for at in (enqueued_at.min(), enqueued_at.max()))
    midnights = np.array(
        [_midnight(first + timedelta(days=day), zone) for day in range((last - first).days + 2)], dtype=np.int64
    )
    counts = np.bincount(np.searchsorted(midnights, enqueued_at, side="right") - 1, minlength=len(midnights) - 1)
    ordinary = np.flatnonzero(counts >= max(1.0, _ORDINARY_SHARE * float(np.median(counts[counts > 0]))))
    days = int(ordinary[-1] - ordinary[0]) + 1
    if days < 3:
        raise ConfigurationError(
            f"The interactions span {days} day(s) of the shop; fit, label and test need at least 3. Take more history."
        )
    length = period_days(days)
    end = int(ordinary[-1]) + 1
    return Periods(int(midnights[end - 2 * length]), int(midnights[end - length]), int(midnights[-1]))


def period_days(span_days: int) -> int:
    """How many days label and test last when the data spans `span_days` (>= 3): 90 give 11, 373 give 28, 10 give 2."""
    eighth = min(_LONGEST_DAYS, max(_SHORTEST_DAYS, span_days // 8))
    return min(eighth, max(1, span_days // 4))


def _zone(time_zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigurationError(f"The shop's time zone {time_zone!r} is not one of the IANA time zones.") from error


def _local_day(at: int, zone: ZoneInfo) -> date:
    return from_ms(at).astimezone(zone).date()


def _midnight(day: date, zone: ZoneInfo) -> int:
    return to_ms(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC))
