"""When she usually comes, by the shop's clock: over changes of that clock, around midnight, without her session."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from shared.events import to_ms
from shared.features.aggregations import DAY_MS, HOUR_MS, MINUTE_MS
from shared.features.items import ItemTable
from shared.features.views import UserView
from tests.unit.builders import UTC, Sent, sent, shopper_of, view_of

LONDON = ZoneInfo("Europe/London")
EIGHT, TEN = "08:00", "10:00"


def at(day: str, clock: str, zone: ZoneInfo = LONDON) -> int:
    return to_ms(datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=zone))


def user(as_of: int, *times: int, zone: ZoneInfo = LONDON) -> UserView:
    history = [sent("view", at=time, item=f"i{number}") for number, time in enumerate(times)]
    return view_of(shopper_of(*history), ItemTable(), as_of, zone)


@pytest.mark.parametrize(
    ("before", "after"),
    [("2023-10-28", "2023-10-30"), ("2023-03-25", "2023-03-27")],
    ids=["the clocks go back", "the clocks go forward"],
)
def test_who_comes_at_eight_comes_at_eight_when_the_clocks_have_changed(before: str, after: str) -> None:
    visits = [at(before, EIGHT) - days * DAY_MS for days in range(5)]
    # Ten by the clock is the last instant that still counts; an hour's slip either way would show.
    assert user(at(after, TEN), *visits).hour_habit() == 1.0
    assert user(at(after, TEN) + 1, *visits).hour_habit() == 0.0
    assert user(at(after, "06:00"), *visits).hour_habit() == 1.0
    assert user(at(after, "06:00") - 1, *visits).hour_habit() == 0.0
    in_utc = user(at(after, TEN), *visits, zone=UTC), user(at(after, "06:00"), *visits, zone=UTC)
    assert sorted(one.hour_habit() for one in in_utc) == [0.0, 1.0], "to a shop in UTC she changed her habit"


def test_the_hour_that_comes_twice_is_the_same_hour() -> None:
    first = at("2023-10-29", "01:30")
    assert user(first + HOUR_MS, first).hour_habit() == 1.0
    assert user(at("2023-10-30", "03:30"), first, first + HOUR_MS).hour_habit() == 1.0
    assert user(at("2023-10-30", "03:30") + 1, first, first + HOUR_MS).hour_habit() == 0.0


def test_a_weekday_ends_at_the_shops_midnight() -> None:
    sunday_night = at("2023-07-02", "23:59")
    assert user(at("2023-07-09", "00:30"), sunday_night).weekday_habit() == 1.0
    assert user(at("2023-07-10", "00:00"), sunday_night).weekday_habit() == 0.0
    kolkata = ZoneInfo("Asia/Kolkata")
    assert user(at("2023-07-10", "00:00"), sunday_night, zone=kolkata).weekday_habit() == 1.0, "Monday there already"


def test_midnight_lies_between_eleven_and_one() -> None:
    assert user(at("2023-07-03", "00:59"), at("2023-07-01", "23:00")).hour_habit() == 1.0
    assert user(at("2023-07-03", "01:01"), at("2023-07-01", "23:00")).hour_habit() == 0.0


def test_what_she_does_just_now_is_no_habit() -> None:
    now = at("2023-07-03", "20:00")
    session = [now - minutes * MINUTE_MS for minutes in (1, 2, 3)]
    stranger = user(now, *session)
    assert stranger.hour_habit() != stranger.hour_habit(), "NaN: nothing is known of her"
    assert user(now, now - DAY_MS - 6 * HOUR_MS, *session).hour_habit() == 0.0


def test_habits_weigh_actions_and_fade() -> None:
    now = at("2023-07-10", "20:00")
    evening, morning = now - 7 * DAY_MS, now - 7 * DAY_MS - 12 * HOUR_MS
    bought: list[Sent] = [sent("purchase", at=evening, item="a"), sent("view", at=morning, item="b")]
    view = view_of(shopper_of(*bought), ItemTable(), now, LONDON)
    fade = 2.0 ** (-0.5 / 14)
    assert view.hour_habit() == pytest.approx(5 / (5 + fade))
    assert view.weekday_habit() == pytest.approx(1.0)
