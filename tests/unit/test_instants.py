"""Sessions and instants: where a page could have been asked for, and what it is judged by."""

from feature_jobs.instants import instants_of, sample, sessions
from shared.events import event_from_fields
from shared.features.replay import LoggedEvent

MINUTE = 60_000
START = 1_790_000_000_000


def logged(
    minute: float, kind: str, item: str, *, user: str = "ann", session: str | None = "s1", sequence: int = 0
) -> LoggedEvent:
    at = START + int(minute * MINUTE)
    fields = {
        "event_id": f"{user}-{minute}-{item}-{kind}",
        "event_type": kind,
        "occurred_at": f"2026-09-21T{0:02}:00:00Z",
        "user_id": user,
        "item_id": item,
        "session_id": session,
    }
    return LoggedEvent("live-1", 0, int(minute), at, event_from_fields(fields))


def test_sessions_follow_the_session_id_and_otherwise_the_gap() -> None:
    named = [logged(0, "view", "a"), logged(90, "view", "b"), logged(91, "view", "c", session="s2")]
    assert [len(session) for session in sessions(named)] == [2, 1]
    unnamed = [
        logged(0, "view", "a", session=None),
        logged(29, "view", "b", session=None),
        logged(60, "view", "c", session=None),
    ]
    assert [len(session) for session in sessions(unnamed)] == [2, 1]


def test_sessions_of_two_users_never_mix() -> None:
    events = [logged(0, "view", "a"), logged(1, "view", "b", user="bob"), logged(2, "view", "c")]
    assert [[one.event.item_id for one in session] for session in sessions(events)] == [["a", "c"], ["b"]]


def test_instants_stand_just_before_the_start_and_before_each_later_positive() -> None:
    session = [logged(0, "view", "a"), logged(1, "cart", "a"), logged(2, "view", "b"), logged(3, "purchase", "b")]
    found = instants_of(session, ("cart", "purchase"))
    assert [one.as_of - START for one in found] == [-1, MINUTE - 1, 3 * MINUTE - 1]
    assert [one.at_start for one in found] == [True, False, False]
    assert found[0].positives == {"a", "b"}
    assert found[0].labels == {"a": 2, "b": 3}
    assert found[1].labels == {"a": 2, "b": 3}
    assert found[2].positives == {"b"}
    assert found[2].labels == {"b": 3}


def test_an_order_of_many_lines_at_one_minute_is_one_instant() -> None:
    session = [logged(0, "purchase", item) for item in "abc"]
    (only,) = instants_of(session, ("purchase",))
    assert only.positives == {"a", "b", "c"}
    assert only.at_start


def test_a_session_without_a_positive_has_no_instant() -> None:
    assert instants_of([logged(0, "view", "a"), logged(1, "remove_from_cart", "a")], ("cart", "purchase")) == []


def test_a_sample_is_drawn_once_in_order_and_the_same_for_the_same_seed() -> None:
    found = [one for minute in range(50) for one in instants_of([logged(minute, "cart", "a")], ("cart",))]
    drawn = sample(found[::-1], 10, seed=3)
    assert drawn == sample(found, 10, seed=3)
    assert drawn != sample(found, 10, seed=4)
    assert [one.as_of for one in drawn] == sorted({one.as_of for one in drawn})
    assert len(drawn) == 10
