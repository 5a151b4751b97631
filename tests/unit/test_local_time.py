from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import from_ms, to_ms
from shared.features.aggregations import DAY_MS, HOUR_MS, MINUTE_MS
from shared.features.local_time import _offsets_of, local_ms, time_of_day_ms, weekdays
from tests.unit.builders import MANY, NOW

ZONES = [
    "UTC",
    "Europe/London",
    "America/St_Johns",  # changed at one minute past midnight until 2011, by 2 h in 1988
    "Asia/Kathmandu",
    "Africa/Casablanca",  # twice more a year, around Ramadan
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # left out a day in 2011
    "America/New_York",
]
FIRST, LAST = to_ms(datetime.fromisoformat("0001-01-02T00:00Z")), to_ms(datetime.fromisoformat("9999-12-30T00:00Z"))
NEAR_NOW = st.integers(NOW - 60 * 365 * DAY_MS, NOW + 10 * 365 * DAY_MS)


def assert_reads_as_datetime_does(instants: list[int], zone: str) -> None:
    local = local_ms(np.array(instants, dtype=np.int64), ZoneInfo(zone))
    clocks = [from_ms(at).astimezone(ZoneInfo(zone)) for at in instants]
    assert weekdays(local).tolist() == [clock.weekday() for clock in clocks]
    assert time_of_day_ms(local).tolist() == [
        ((clock.hour * 60 + clock.minute) * 60 + clock.second) * 1000 + clock.microsecond // 1000 for clock in clocks
    ]


@MANY
@given(st.lists(NEAR_NOW, min_size=1, max_size=30), st.sampled_from(ZONES))
def test_many_instants_read_as_each_does_alone(instants: list[int], zone: str) -> None:
    assert_reads_as_datetime_does(instants, zone)


@pytest.mark.parametrize("zone", ZONES)
def test_the_millisecond_of_every_change_is_found(zone: str) -> None:
    changes = [int(at) for year in range(1970, 2038) for at in _offsets_of(ZoneInfo(zone), year)[0]]
    assert_reads_as_datetime_does([at + step for at in changes for step in (-1, 0, 1)], zone)


@pytest.mark.parametrize("zone", ZONES)
def test_events_of_any_year_have_a_local_time(zone: str) -> None:
    assert_reads_as_datetime_does([FIRST, LAST, -1, 0, FIRST + DAY_MS, LAST - DAY_MS], zone)


@pytest.mark.parametrize(
    ("day", "hours"), [("2023-03-26", 23), ("2023-10-29", 25), ("2023-06-01", 24)], ids=["spring", "autumn", "summer"]
)
def test_a_day_of_the_shop_may_have_23_or_25_hours(day: str, hours: int) -> None:
    london = ZoneInfo("Europe/London")
    midnight = to_ms(datetime.fromisoformat(day).replace(tzinfo=london))
    quarters = np.arange(midnight, midnight + 26 * HOUR_MS, 15 * MINUTE_MS)
    same_day = weekdays(local_ms(quarters, london)) == datetime.fromisoformat(day).weekday()
    assert same_day.sum() == 4 * hours


def test_no_instant_has_no_local_time() -> None:
    assert local_ms(np.empty(0, dtype=np.int64), ZoneInfo("Europe/London")).tolist() == []
