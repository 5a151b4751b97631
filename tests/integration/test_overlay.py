"""The overlay of a user: newest wins whoever writes first, an erasure voids, what the fold has passed is void too."""

from __future__ import annotations

import itertools

import pytest
from redis import Redis

from shared.adapters.keys import overlay_key, user_key
from shared.adapters.redis_overlay import LAST_OF_INSTANT, PREFERENCES_TTL_MS, Changes, RedisOverlays
from shared.catalog import FieldVersion
from shared.errors import CorruptRecord, StateUnavailable
from shared.features.overlay import NO_OVERLAY, Overlay, decode_overlay

SECRET = "test secret"
NOW = 1_790_000_000_000
FAR_HASH = 2**64 - 1


def version(at: int, event: int, brand: str = "Acme") -> FieldVersion:
    return at, event, {"hidden_brands": [brand]}


@pytest.fixture
def overlays(state_client: Redis) -> RedisOverlays:
    return RedisOverlays(state_client, SECRET)


@pytest.fixture
def key(state_client: Redis) -> str:
    return overlay_key(user_key("eve", SECRET))


def test_what_is_written_is_read(overlays: RedisOverlays, state_client: Redis, key: str) -> None:
    assert overlays.read("eve") == NO_OVERLAY
    place = ("live-1", 3, 2**53)
    assert overlays.set_preferences("eve", version(NOW, FAR_HASH), place)
    assert overlays.read("eve") == Overlay(version(NOW, FAR_HASH), None, place)
    assert 0 < state_client.pttl(key) <= PREFERENCES_TTL_MS
    assert b"eve" not in b"".join(state_client.scan_iter())


def test_the_newest_wins_in_every_order(overlays: RedisOverlays, state_client: Redis, key: str) -> None:
    written = [
        version(-62_135_510_400_000, 1),  # the first instant an event may name
        version(NOW, 2**63 + 1),
        version(NOW, 2**63),
        version(NOW, 2**32 - 1),
        version(NOW - 1, FAR_HASH),
    ]
    newest = max(written)
    for order in itertools.permutations(written):
        state_client.delete(key)
        for one in order:
            overlays.set_preferences("eve", one)
        assert overlays.read("eve").preferences == newest, order
    assert not overlays.set_preferences("eve", version(NOW, 2**63 + 1, "of the same id")), "the first one stays"


def test_an_erasure_voids_and_never_expires(overlays: RedisOverlays, state_client: Redis, key: str) -> None:
    overlays.set_preferences("eve", version(NOW, 5))
    overlays.erase("eve", NOW)
    assert overlays.read("eve") == Overlay(None, NOW)
    assert state_client.pttl(key) == -1
    assert not overlays.set_preferences("eve", version(NOW, 7)), "what was set before the erasure is void"
    assert overlays.set_preferences("eve", version(NOW + 1, 7))
    overlays.erase("eve", NOW - 5)
    assert overlays.read("eve") == Overlay(version(NOW + 1, 7), NOW), "an older erasure changes nothing"
    assert state_client.pttl(key) == -1


def test_who_listens_hears_every_write_after_it_began(overlays: RedisOverlays, monkeypatch: pytest.MonkeyPatch) -> None:
    overlays.set_preferences("eve", version(NOW, 1))
    begun = overlays.changes_since(None)
    assert begun.orders is None, "what was held before cannot be judged"
    assert overlays.changes_since(begun.position) == Changes(begun.position, {})
    overlays.set_preferences("eve", version(NOW, FAR_HASH))
    overlays.set_preferences("eve", version(NOW - 1, 5))
    overlays.erase("bob", NOW)
    heard = overlays.changes_since(begun.position)
    eve, bob = user_key("eve", SECRET), user_key("bob", SECRET)
    assert heard.orders == {eve: (NOW, FAR_HASH), bob: (NOW, LAST_OF_INSTANT)}
    assert overlays.changes_since(heard.position).orders == {}
    monkeypatch.setattr("shared.adapters.redis_overlay.MOST_CHANGES", 3)
    assert overlays.changes_since(begun.position).orders is None, "too far behind"


def test_a_clock_that_is_ahead_does_not_keep_later_wishes_out(overlays: RedisOverlays) -> None:
    ahead = 4_000_000_000_000
    overlays.set_preferences("eve", version(ahead, 1, "ahead"), now_at_most=True)
    held = overlays.read("eve").preferences
    assert held is not None
    assert held[0] < ahead
    overlays.set_preferences("eve", version(held[0] + 1000, 2, "later"), now_at_most=False)
    found = overlays.read("eve").preferences
    assert found is not None
    assert found[2] == {"hidden_brands": ["later"]}


def test_what_the_fold_has_passed_no_longer_counts() -> None:
    held = Overlay(version(NOW, 1), NOW - 9, ("live-1", 2, 40))
    for folded in ({}, {("live-1", 2): 39}, {("live-1", 3): 99}, {("old-1", 2): 99}):
        assert held.ahead_of(folded) == held
    for sequence in (40, 41):
        assert held.ahead_of({("live-1", 2): sequence}) == Overlay(None, NOW - 9)
    untold = Overlay(version(NOW, 1))
    assert untold.ahead_of({("live-1", 2): 99}) == untold


def test_merging_is_commutative() -> None:
    parts = [
        NO_OVERLAY,
        Overlay(version(NOW, 1), None, ("live-1", 0, 1)),
        Overlay(version(NOW, 2), NOW - 1),
        Overlay(None, NOW),
        Overlay(version(NOW + 1, 1)),
    ]
    for one, other in itertools.permutations(parts, 2):
        assert one.merge(other) == other.merge(one)
        assert one.merge(one) == one
    assert parts[1].merge(parts[3]) == Overlay(None, NOW)
    assert parts[4].merge(parts[3]) == Overlay(version(NOW + 1, 1), NOW)


def test_faults_have_their_names(overlays: RedisOverlays, state_client: Redis, key: str) -> None:
    for torn in ([b"x", b"1", b"\x80", None], [b"1", b"1", b"", None], [b"1"]):
        with pytest.raises(CorruptRecord):
            decode_overlay(torn)
    state_client.set(key, b"not a hash")
    for call in (lambda: overlays.set_preferences("eve", version(NOW, 1)), lambda: overlays.read("eve")):
        with pytest.raises(StateUnavailable):
            call()
