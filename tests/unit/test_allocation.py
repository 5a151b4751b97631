from __future__ import annotations

from collections import Counter
from math import inf, nan, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigurationError
from shared.ports import Allocation
from shared.releases.allocation import allocated_release, whole
from tests.unit.builders import MANY

USERS = [f"user-{number}" for number in range(4000)]


def shares(*releases: tuple[str, float], salt: str = "salt") -> dict[str, str]:
    allocation = Allocation(1, salt, releases)
    return {user: allocated_release(allocation, user) for user in USERS}


@pytest.mark.parametrize("scale", [1.0, 1000.0, 1e-9])
def test_shares_are_near_the_weights(scale: float) -> None:
    weights = {"a": 0.6, "b": 0.3, "c": 0.1}
    seen = Counter(shares(*((name, weight * scale) for name, weight in weights.items())).values())
    for name, weight in weights.items():
        error = sqrt(weight * (1 - weight) / len(USERS))
        assert seen[name] / len(USERS) == pytest.approx(weight, abs=4 * error)


def test_a_users_release_is_the_same_every_time_whatever_the_version() -> None:
    first = shares(("a", 1), ("b", 1))
    assert first == shares(("a", 1), ("b", 1)) == shares(("a", 5), ("b", 5))
    assert first != shares(("a", 1), ("b", 1), salt="other")


def test_moving_weight_moves_only_users_of_the_release_that_gave_it() -> None:
    before, after = shares(("a", 0.95), ("canary", 0.05)), shares(("a", 0.75), ("canary", 0.25))
    moved = [user for user in USERS if before[user] != after[user]]
    assert {(before[user], after[user]) for user in moved} == {("a", "canary")}
    assert len(moved) / len(USERS) == pytest.approx(0.2, abs=0.03)


def test_a_release_without_weight_is_seen_by_nobody() -> None:
    assert set(shares(("none", 0.0), ("a", 1.0), ("last", 0.0)).values()) == {"a"}


@MANY
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5), st.text(max_size=20))
def test_everyone_is_given_a_release_with_weight_or_the_allocation_is_refused(weights: list[float], user: str) -> None:
    allocation = Allocation(1, "s", tuple((str(number), weight) for number, weight in enumerate(weights)))
    if sum(weights) > 0:
        assert weights[int(allocated_release(allocation, user))] > 0
    else:
        with pytest.raises(ConfigurationError):
            allocated_release(allocation, user)


@pytest.mark.parametrize("weights", [(), (0.0,), (1.0, -0.5), (nan,), (1.0, nan), (inf, 1.0)])
def test_weights_that_make_no_sense_are_refused(weights: tuple[float, ...]) -> None:
    allocation = Allocation(1, "s", tuple((str(number), weight) for number, weight in enumerate(weights)))
    with pytest.raises(ConfigurationError, match="weights"):
        allocated_release(allocation, "ann")


def test_the_whole_shop_moves_to_one_release_under_the_same_salt() -> None:
    first = whole("r1", None)
    second = whole("r2", first)
    assert (first.version, first.releases) == (1, (("r1", 1.0),))
    assert second == Allocation(2, first.salt, (("r2", 1.0),))
    assert {allocated_release(second, user) for user in USERS[:50]} == {"r2"}
