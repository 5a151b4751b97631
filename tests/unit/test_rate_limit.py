"""The bucket of each caller, and which address a request is counted for."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.access import rate_limit
from functions.access.client_address import UNKNOWN, client_network
from functions.access.rate_limit import MOST_CALLERS, RateLimit


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    limit = RateLimit(per_minute=60)
    now_s = 50_000.0
    burst = [limit.take("a", now_s) for _ in range(12)]
    assert [one.allowed for one in burst] == [True] * 10 + [False] * 2
    assert [one.remaining for one in burst] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]
    assert burst[-1].retry_after_s == pytest.approx(1.0)
    assert limit.take("b", now_s).allowed, "another caller has a bucket of its own"
    assert not limit.take("a", now_s + 0.9).allowed
    assert limit.take("a", now_s + 1.0).allowed, "asking too early costs nothing"
    assert not limit.take("a", now_s + 1.0).allowed
    assert sum(limit.take("a", now_s + 1000).allowed for _ in range(20)) == 10


@given(
    st.integers(1, 5000),
    st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=200),
    st.floats(0, 1e9, allow_nan=False),
)
def test_no_more_than_a_token_bucket_would_give(per_minute: int, pauses: list[float], start_s: float) -> None:
    limit = RateLimit(per_minute)
    tokens, now_s = float(limit.capacity), start_s
    for pause in pauses:
        now_s += pause
        tokens = min(limit.capacity, tokens + pause * per_minute / 60)
        decision = limit.take("x", now_s)
        if abs(tokens - 1) > 1e-3:
            assert decision.allowed == (tokens > 1)
            tokens -= decision.allowed
        elif decision.allowed:
            tokens = max(0.0, tokens - 1)
        assert (decision.retry_after_s > 0) == (not decision.allowed)
        assert decision.remaining <= tokens + 1e-2


def test_very_many_addresses_take_bounded_memory_and_forget_who_was_not_seen_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = RateLimit(6)
    assert limit.take("steady", 0.0).allowed
    for number in range(250_000):
        limit.take(str(number), number / 1e6)
        if number % 50_000 == 0:
            assert not limit.take("steady", number / 1e6).allowed
    assert len(limit) == MOST_CALLERS
    assert sys.getsizeof(limit._full_again_at) < 20 * 2**20
    assert not limit.take("249999", 1.0).allowed
    monkeypatch.setattr(rate_limit, "MOST_CALLERS", 1)
    assert limit.take("new", 1.0).allowed


def scope(client: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", one.encode()) for one in forwarded]
    return {"type": "http", "client": None if client is None else (client, 1), "headers": headers}


@pytest.mark.parametrize(
    ("client", "forwarded", "proxies", "expected"),
    [
        ("10.0.0.1", (), 0, "10.0.0.1"),
        ("10.0.0.1", ("1.1.1.1",), 0, "10.0.0.1"),
        ("10.0.0.1", ("1.1.1.1",), 1, "1.1.1.1"),
        ("10.0.0.1", ("6.6.6.6, 1.1.1.1",), 1, "1.1.1.1"),
        ("10.0.0.1", ("6.6.6.6", "1.1.1.1, 10.0.0.9"), 2, "1.1.1.1"),
        ("10.0.0.1", ("6.6.6.6",), 2, "10.0.0.1"),
        ("10.0.0.1", (), 1, "10.0.0.1"),
        (None, ("203.0.113.7:51234",), 1, "203.0.113.7"),
        (None, ("[2001:db8:1:2:3:4:5:6]:443",), 1, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", (), 0, "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", (), 0, "192.0.2.1"),
        (None, ("unix:",), 1, UNKNOWN),
        (None, ("",), 1, UNKNOWN),
        (None, (), 0, UNKNOWN),
        ("testclient", (), 0, UNKNOWN),
    ],
)
def test_headers_are_believed_as_far_as_the_setting_says(
    client: str | None, forwarded: tuple[str, ...], proxies: int, expected: str
) -> None:
    assert client_network(scope(client, *forwarded), proxies) == expected
