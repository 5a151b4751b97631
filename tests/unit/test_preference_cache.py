"""What a worker remembers of preferences: bounded, never older than what it was told, and honest about its age."""

from __future__ import annotations

import pytest

from functions.preferences import preference_cache
from functions.preferences.preference_cache import HELD_S, TRUSTED_S, PreferenceCache, Wishes
from shared.events import Preferences

UNKNOWN = Wishes(None, unavailable=True)
ANN, BOB = b"ann", b"bob"


class Watch:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def cache(watch: Watch) -> PreferenceCache:
    return PreferenceCache(watch)


def hides(*brands: str) -> Preferences:
    return Preferences(hidden_brands=list(brands))


def test_who_was_never_read_is_unknown_and_who_has_no_wishes_is_not(cache: PreferenceCache) -> None:
    assert cache.wishes(ANN) == UNKNOWN
    cache.learn(ANN, None, (0, 0), cache.begin_read())
    assert cache.wishes(ANN) == Wishes(None)


def test_a_read_that_a_write_or_a_later_read_overtook_is_not_kept(cache: PreferenceCache) -> None:
    slow, slower = cache.begin_read(), cache.begin_read()
    cache.write(ANN, hides("new"), (9, 0))
    cache.learn(ANN, hides("old"), (1, 0), slow)
    assert cache.wishes(ANN) == Wishes(hides("new"))
    cache.learn(BOB, hides("second"), (2, 0), slower)
    cache.learn(BOB, hides("first"), (1, 0), slow)
    assert cache.wishes(BOB) == Wishes(hides("second"))
    cache.learn(ANN, hides("as it is"), (9, 0), cache.begin_read())
    assert cache.wishes(ANN) == Wishes(hides("as it is"))


def test_an_older_write_does_not_replace_a_newer_one(cache: PreferenceCache) -> None:
    cache.write(ANN, hides("new"), (9, 5))
    cache.write(ANN, hides("old"), (9, 4))
    assert cache.wishes(ANN).preferences == hides("new")


def test_what_others_wrote_is_forgotten_and_what_is_as_new_is_kept(cache: PreferenceCache, watch: Watch) -> None:
    cache.write(ANN, hides("mine"), (5, 5))
    cache.write(BOB, hides("mine"), (5, 5))
    cache.hear({ANN: (5, 6), BOB: (5, 5), b"eve": (1, 1)}, watch())
    assert cache.wishes(ANN) == UNKNOWN
    assert cache.wishes(BOB) == Wishes(hides("mine"))
    cache.hear(None, watch())
    assert cache.wishes(BOB) == UNKNOWN


@pytest.mark.parametrize("orders", [{ANN: (9, 9)}, None])
def test_a_read_under_way_while_others_wrote_is_not_kept(
    cache: PreferenceCache, watch: Watch, orders: dict[bytes, tuple[int, int]] | None
) -> None:
    begun = cache.begin_read()
    cache.hear(orders, watch())
    cache.learn(ANN, hides("before"), (1, 1), begun)
    assert cache.wishes(ANN) == UNKNOWN
    cache.learn(ANN, hides("after"), (9, 9), cache.begin_read())
    assert cache.wishes(ANN) == Wishes(hides("after"))


def test_trust_ends_a_while_after_it_was_last_heard_of_and_memory_later(cache: PreferenceCache, watch: Watch) -> None:
    cache.write(ANN, hides("mine"), (5, 5))
    watch.now += TRUSTED_S
    assert cache.wishes(ANN) == Wishes(hides("mine"))
    watch.now += 1
    assert cache.wishes(ANN) == Wishes(hides("mine"), unavailable=True)
    cache.hear({}, watch())
    assert cache.wishes(ANN) == Wishes(hides("mine"))
    watch.now = 1000.0 + HELD_S + 1
    cache.hear({}, watch())
    assert cache.wishes(ANN) == UNKNOWN


def test_old_ones_are_dropped_without_being_asked_for(cache: PreferenceCache, watch: Watch) -> None:
    cache.write(ANN, hides("old"), (5, 5))
    watch.now += HELD_S
    cache.write(BOB, hides("young"), (5, 5))
    watch.now += 1
    cache.drop_old()
    assert not cache.holds(ANN)
    assert cache.holds(BOB)


def test_it_stays_bounded_in_users_and_in_names(cache: PreferenceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preference_cache, "MOST_USERS", 3)
    monkeypatch.setattr(preference_cache, "MOST_NAMES", 10)
    for user in (b"1", b"2", b"3"):
        cache.write(user, hides("x"), (1, 1))
    cache.wishes(b"1")
    cache.write(b"4", hides("x"), (1, 1))
    assert [user for user in (b"1", b"2", b"3", b"4") if cache.holds(user)] == [b"1", b"3", b"4"]
    cache.write(b"5", hides(*map(str, range(9))), (1, 1))
    assert [user for user in (b"1", b"3", b"4", b"5") if cache.holds(user)] == [b"4", b"5"]
    cache.write(b"5", hides(), (2, 1))
    for user in (b"6", b"7"):
        cache.write(user, hides(*map(str, range(5))), (1, 1))
    assert cache.holds(b"6"), "names that were replaced no longer count"
    assert cache.holds(b"7")
