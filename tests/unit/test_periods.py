"""Periods: lengths by the rule, ends at the shop's midnight, stray events without a period of their own."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batch.periods import Periods, choose_periods, period_days
from shared.errors import ConfigurationError
from shared.events import from_ms, to_ms

DAY_MS = 24 * 3600 * 1000


def noon_of_each_day(first: datetime, days: int, each: int = 1) -> NDArray[np.int64]:
    return np.array(
        [to_ms(first + timedelta(days=day, hours=12, minutes=n)) for day in range(days) for n in range(each)],
        dtype=np.int64,
    )


@pytest.mark.parametrize(
    ("span", "length"), [(3, 1), (7, 1), (10, 2), (28, 7), (60, 7), (90, 11), (224, 28), (373, 28), (2000, 28)]
)
def test_lengths(span: int, length: int) -> None:
    assert period_days(span) == length


@given(span=st.integers(3, 5000))
def test_every_period_has_days_and_fit_at_least_as_many_as_the_others(span: int) -> None:
    assert period_days(span) >= 1
    assert span - 2 * period_days(span) >= period_days(span)


def test_ends_are_midnights_of_the_shop_across_a_change_of_clocks() -> None:
    zone = ZoneInfo("Europe/London")
    periods = choose_periods(noon_of_each_day(datetime(2011, 9, 1, tzinfo=zone), 90), "Europe/London")
    local = [from_ms(at).astimezone(zone) for at in (periods.fit_end_at, periods.label_end_at, periods.test_end_at)]
    assert [(each.date().isoformat(), each.hour, each.minute) for each in local] == [
        ("2011-11-08", 0, 0),
        ("2011-11-19", 0, 0),
        ("2011-11-30", 0, 0),
    ]
    early = choose_periods(noon_of_each_day(datetime(2011, 8, 20, tzinfo=zone), 80), "Europe/London")
    assert from_ms(early.fit_end_at).astimezone(zone).hour == 0
    assert from_ms(early.fit_end_at).hour == 23, "before the change of clocks London's midnight is 23:00 UTC"


def test_spans() -> None:
    periods = Periods(10, 20, 30)
    assert [periods.span_end_at(span) for span in ("fit", "fit_label", "all")] == [10, 20, 30]


def test_every_event_lies_before_the_test_end() -> None:
    at = noon_of_each_day(datetime(2026, 3, 1, tzinfo=ZoneInfo("UTC")), 40)
    midnight = np.array([to_ms(datetime(2026, 4, 10, tzinfo=ZoneInfo("UTC")))])
    assert choose_periods(np.concatenate([at, midnight]), "UTC").test_end_at == int(midnight[0]) + DAY_MS


def test_a_few_clicks_weeks_later_do_not_move_the_periods() -> None:
    history = noon_of_each_day(datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")), 90, each=100)
    clicks = history[-1:] + 30 * DAY_MS + np.arange(4)
    plain, later = choose_periods(history, "UTC"), choose_periods(np.concatenate([history, clicks]), "UTC")
    assert (later.fit_end_at, later.label_end_at) == (plain.fit_end_at, plain.label_end_at)
    assert later.test_end_at > int(clicks[-1])


def test_a_shift_by_whole_weeks_shifts_the_periods() -> None:
    zone = ZoneInfo("America/New_York")
    first = datetime(2026, 1, 5, tzinfo=zone)
    plain = choose_periods(noon_of_each_day(first, 100), "America/New_York")
    shifted = choose_periods(noon_of_each_day(first + timedelta(weeks=11), 100), "America/New_York")
    for span in ("fit", "fit_label", "all"):
        moved = from_ms(plain.span_end_at(span)).astimezone(zone) + timedelta(weeks=11)
        assert from_ms(shifted.span_end_at(span)).astimezone(zone) == moved


def test_order_does_not_matter() -> None:
    at = noon_of_each_day(datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")), 50)
    assert choose_periods(at[::-1].copy(), "UTC") == choose_periods(at, "UTC")


def test_too_little_data_and_unknown_zones_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no interactions"):
        choose_periods(np.empty(0, dtype=np.int64), "UTC")
    two_days = noon_of_each_day(datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")), 2)
    with pytest.raises(ConfigurationError, match=r"span 2 day"):
        choose_periods(two_days, "UTC")
    with pytest.raises(ConfigurationError, match="Mars/Base"):
        choose_periods(two_days, "Mars/Base")
