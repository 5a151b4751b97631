"""The local trigger host: what it hands to functions is what Azure's host hands over, when the schedule says so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

import azure.functions as func
import pytest

from local.schedule import Schedule
from local.trigger_host import (
    EVENT_HUB,
    TIMER,
    Triggered,
    event_function,
    event_hub_batch,
    run_timer,
    triggered_functions,
)
from shared.errors import ConfigurationError
from shared.ports import LogRecord

AT = 1_764_000_000_007


def record(sequence: int, partition: int = 3) -> LogRecord:
    return LogRecord("live-1", partition, sequence, AT + sequence, b'{"n":%d}' % sequence)


def triggered(body: Callable[..., object], trigger: str = TIMER) -> Triggered:
    return Triggered("f", trigger, "value", {"schedule": "* * * * * *"}, body)


def test_a_batch_looks_like_a_batch_of_azures_host() -> None:
    events = event_hub_batch([record(5), record(6)])
    assert [event.get_body() for event in events] == [b'{"n":5}', b'{"n":6}']
    assert [event.sequence_number for event in events] == [5, 6]
    assert events[1].enqueued_time is not None
    instant = events[1].enqueued_time.replace(tzinfo=UTC)
    assert round(instant.timestamp() * 1000) == AT + 6
    metadata = events[0].metadata
    assert metadata is not None
    assert metadata["PartitionContext"]["PartitionId"] == "3"
    assert metadata["SequenceNumberArray"] == [5, 6]
    assert [entry["SequenceNumber"] for entry in metadata["SystemPropertiesArray"]] == [5, 6]


def test_a_batch_holds_one_partition() -> None:
    with pytest.raises(ValueError, match="one partition"):
        event_hub_batch([record(1, partition=0), record(2, partition=1)])


def test_functions_are_found_by_their_triggers_and_called_by_their_arguments() -> None:
    app = func.FunctionApp()
    seen: list[object] = []

    @app.function_name("tick")
    @app.timer_trigger(schedule="0 * * * * *", arg_name="timer")
    def tick(timer: func.TimerRequest) -> None:
        seen.append(timer.past_due)

    @app.function_name("take")
    @app.event_hub_message_trigger(arg_name="events", event_hub_name="events", connection="C")
    async def take(events: list[func.EventHubEvent]) -> None:
        seen.append(len(events))

    @app.function_name("page")
    @app.route("page", auth_level=func.AuthLevel.ANONYMOUS)
    def page(req: func.HttpRequest) -> str:
        return "not for the host"

    found = triggered_functions(app)
    assert [(each.name, each.trigger) for each in found] == [("tick", TIMER), ("take", EVENT_HUB)]
    assert run_timer(found[0])
    event_function(found).call(event_hub_batch([record(1)]))
    assert seen == [False, 1]


def test_a_pump_feeds_exactly_one_function() -> None:
    with pytest.raises(ConfigurationError, match="0 functions"):
        event_function([triggered(print)])


def test_a_timer_that_raises_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(value: object) -> None:
        raise RuntimeError("out of paper")

    with caplog.at_level(logging.ERROR):
        assert not run_timer(triggered(fail))
    assert "out of paper" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 * * * * *", "2026-11-23T08:31:00"),
        ("*/15 * * * * *", "2026-11-23T08:30:45"),
        ("0 0 9 * * *", "2026-11-23T09:00:00"),
        ("0 30 8 * * *", "2026-11-24T08:30:00"),
        ("10,20 31-32 * * * *", "2026-11-23T08:31:10"),
        ("0 0 0 * * 2", "2026-11-24T00:00:00"),
    ],
)
def test_schedules(text: str, expected: str) -> None:
    now = datetime(2026, 11, 23, 8, 30, 30, 250_000, tzinfo=UTC)  # a Monday
    assert Schedule(text).after(now) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["* * * * *", "60 * * * * *", "x * * * * *", "*/0 * * * * *", "5-1 * * * * *"])
def test_schedules_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Schedule(text)


def test_a_schedule_that_waits_longer_than_a_day_is_refused_when_asked() -> None:
    with pytest.raises(ConfigurationError, match="within a day"):
        Schedule("0 0 0 1 1 *").after(datetime(2026, 11, 23, tzinfo=UTC))
