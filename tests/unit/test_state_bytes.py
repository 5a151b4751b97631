"""A user's state stays under a kilobyte for nineteen users of twenty, and the benchmark's sample is what it says."""

from __future__ import annotations

import pytest

from shared.features.shard import RING_SIZE
from tests.benchmarks.state_bytes import EVENTS, USERS, events_of_rank, main, measure


def test_the_ranks_share_all_events() -> None:
    steps = [(low, min(low * 2, USERS)) for low in (2**power for power in range(20))]
    total = sum((high - low) * events_of_rank((low + high) // 2, USERS, EVENTS) for low, high in steps)
    assert total == pytest.approx(EVENTS, rel=0.05)


def test_nineteen_users_of_twenty_take_less_than_a_kilobyte(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sample", "400"]) == 0
    assert '"p95"' in capsys.readouterr().out


def test_the_sample_is_the_same_for_the_same_seed_and_its_ring_stays_bounded() -> None:
    assert measure(100, 3) == measure(100, 3) != measure(100, 4)
    assert measure(100, 3)["ring_bytes_mean"] <= RING_SIZE * 14
