"""A replay's pace and delivery, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from local.replay import shifted_to_now
from local.replay_delivery import (
    GIVE_UP_AFTER_S,
    LONGEST_PAUSE_S,
    MOST_AT_ONCE,
    Delivery,
    Pace,
    ProgressFile,
    Recorded,
)
from local.replay_source import Place
from shared.errors import BrokerUnavailable, CorruptRecord
from shared.events import encode_event, partition_of
from shared.features.replay import LoggedEvent
from shared.ports import Appended
from tests.unit.lake_builders import START, event


class Time:
    """Passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def seconds(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


def recorded(*after_ms: int, late_ms: int = 0) -> list[Recorded]:
    found = []
    for number, after in enumerate(after_ms, start=1):
        logged = LoggedEvent("a", 0, number, START + after, event(number, START + after - late_ms))
        found.append((Place("2023-11-15", number, number), logged))
    return found


def sizes_and_instants(
    events: Sequence[Recorded], speed: float | None, busy_s: float = 0.0
) -> list[tuple[int, float, float]]:
    time = Time()
    pace = Pace(speed, time.seconds, time.sleep)
    found = []
    for batch in pace.batches(events):
        found.append((len(batch), round(time.now - 1000, 3), round(pace.behind_s, 3)))
        time.now += busy_s
    return found


def test_events_go_out_when_they_are_due_and_those_due_together_at_once() -> None:
    events = recorded(0, 0, 1000, 1000, 1000, 5000)
    assert sizes_and_instants(events, 1.0) == [(2, 0, 0), (3, 1, 0), (1, 5, 0)]
    assert sizes_and_instants(events, 100.0) == [(2, 0, 0), (3, 0.01, 0), (1, 0.05, 0)]
    assert sizes_and_instants(events, None) == [(6, 0, 0)]
    assert sizes_and_instants([], 1.0) == []


def test_a_slow_broker_makes_a_replay_late_and_never_forgetful() -> None:
    events = recorded(*range(0, 10_000, 1000))
    found = sizes_and_instants(events, 1.0, busy_s=3.5)
    assert found[:2] == [(1, 0.0, 0.0), (3, 3.5, 0.5)]
    assert sum(count for count, _, _ in found) == 10
    at_once = sizes_and_instants(recorded(*[0] * 1201), 1.0)
    assert [count for count, _, _ in at_once] == [MOST_AT_ONCE, MOST_AT_ONCE, 201]


def test_shifted_to_now_an_event_occurs_when_it_goes_out_and_stays_as_late_as_it_was() -> None:
    events = recorded(0, 8000, late_ms=300)
    time = Time()
    pace = Pace(4.0, time.seconds, time.sleep)
    date = shifted_to_now(pace, 4.0, last_at=START + 8000, now_ms=50_000)
    dated = [date(one).occurred_at_ms for batch in pace.batches(events) for one in batch]
    assert dated == [50_000 - 300, 50_000 + 2000 - 300]


def test_at_full_speed_the_last_one_is_now_and_all_keep_their_distances() -> None:
    events = recorded(0, 8000, 8500, late_ms=300)
    pace = Pace(None, Time().seconds, Time().sleep)
    date = shifted_to_now(pace, None, last_at=START + 8500, now_ms=5_000_000)
    assert [date(one).occurred_at_ms for one in events] == [4_991_200, 4_999_200, 4_999_700]
    assert {date(one).event_id for one in events} == {"e1", "e2", "e3"}


class FakeLog:
    """Answers as it is told: a set of refused partitions, or None for no answer at all."""

    def __init__(self, *answers: set[int] | None) -> None:
        self.answers = list(answers)
        self.taken: list[bytes] = []

    def append(self, events: Sequence[tuple[str, bytes]]) -> list[Appended | None]:
        return self.append_to([(partition_of(key, 4), body) for key, body in events])

    def append_to(self, events: Sequence[tuple[int, bytes]]) -> list[Appended | None]:
        refused = self.answers.pop(0) if self.answers else set()
        if refused is None:
            raise BrokerUnavailable("nobody there")
        found: list[Appended | None] = []
        for partition, body in events:
            found.append(None if partition in refused else Appended(partition, None))
            if partition not in refused:
                self.taken.append(body)
        return found


USERS = [event(number, START, f"user{number}") for number in range(20)]


@pytest.fixture
def deliver() -> Callable[[FakeLog], tuple[Delivery, Time]]:
    def make(log: FakeLog) -> tuple[Delivery, Time]:
        time = Time()
        return Delivery(log, time.seconds, time.sleep), time

    return make


def test_what_is_not_acknowledged_is_sent_again_alone(deliver: Callable[[FakeLog], tuple[Delivery, Time]]) -> None:
    log = FakeLog({1, 2}, {2})
    delivery, time = deliver(log)
    delivery.deliver(USERS)
    assert sorted(log.taken) == sorted(encode_event(one) for one in USERS), "each once"
    assert len(time.slept) == 2
    assert delivery.repeated > 0


def test_without_an_answer_the_pause_doubles_until_it_gives_up(
    deliver: Callable[[FakeLog], tuple[Delivery, Time]],
) -> None:
    log = FakeLog(*[None] * 8)
    delivery, time = deliver(log)
    delivery.deliver(USERS)
    assert time.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert len(log.taken) == 20

    nobody, time = deliver(FakeLog(*[None] * 1000))
    with pytest.raises(BrokerUnavailable, match=r"20 events .* nobody there"):
        nobody.deliver(USERS)
    assert GIVE_UP_AFTER_S < time.now - 1000 < GIVE_UP_AFTER_S + 2 * LONGEST_PAUSE_S


def test_any_acknowledgement_is_a_reason_to_go_on(deliver: Callable[[FakeLog], tuple[Delivery, Time]]) -> None:
    log = FakeLog(*[None] * 60, {1, 2, 3}, *[None] * 60, {1, 2}, *[None] * 60)
    delivery, time = deliver(log)
    delivery.deliver(USERS)
    assert time.now - 1000 > 2 * GIVE_UP_AFTER_S
    assert len(log.taken) == 20


def test_the_progress_file(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path / "new" / "replay.json")
    assert progress.read() is None
    progress.clear()
    for place in (Place("2023-11-15", 3, 3), Place("2023-11-16", 1, 8)):
        progress.write(place)
        assert progress.read() == place
    assert [path.name for path in progress.path.parent.iterdir()] == ["replay.json"]
    progress.path.write_bytes(b"{")
    with pytest.raises(CorruptRecord, match="--anew"):
        progress.read()
    progress.clear()
    assert progress.read() is None
