"""An erasure leaves a tombstone: what it covers, what it voids elsewhere, and who comes after it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.keys import user_key
from shared.errors import InvalidEvent
from shared.events import Event, EventType, UserId, decode_event, encode_event, from_ms, keyed_user
from shared.features.aggregations import DAY_MS, EXPIRES_AFTER_MS
from shared.features.fold import fold_user
from shared.features.overlay import Overlay
from shared.features.shard import UserShard, merge_shards, newest_erasure
from shared.features.state import EMPTY_AT
from shared.ingest.fold_chunk import fresh_entry, split_at_erasure
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord
from tests.unit.builders import MODEST, NOW, Sent, asked, event, histories, state_of

KEY, RECEIPT = "0123456789abcdef" * 2, "f" * 32


def erasure(at: int = NOW, receipt: str = RECEIPT, user: str | None = None) -> Event:
    return Event(
        event_id=f"erasure-{receipt}",
        event_type=EventType.USER_ERASED,
        occurred_at=from_ms(at),
        user_id=None if user is None else UserId(user),
        changes={"user_key": KEY, "receipt": receipt} if user is None else None,
    )


def shard_of(*folded: tuple[Event, int]) -> UserShard:
    shard = UserShard.empty()
    for sequence, (one, enqueued_at) in enumerate(folded):
        fold_user(shard, one, enqueued_at, sequence)
    return UserShard.decode(shard.encode())


def test_an_erasure_names_its_user_by_her_keyed_hash() -> None:
    made = decode_event(encode_event(erasure()))
    assert made == erasure()
    assert made.user_id is None
    assert made.subject == keyed_user(KEY)
    assert user_key(made.subject, "any secret").hex() == KEY
    assert event("view").subject == event("view").user_id
    assert erasure(user="ann").subject == "ann"


@pytest.mark.parametrize(
    "changes",
    [
        None, {}, {"user_key": KEY}, {"user_key": KEY, "receipt": RECEIPT, "user_id": "ann"},
        {"user_key": KEY.upper(), "receipt": RECEIPT}, {"user_key": KEY + "\n", "receipt": RECEIPT},
        {"user_key": KEY[:-1], "receipt": RECEIPT}, {"user_key": "\x00" + KEY, "receipt": RECEIPT},
    ],
)  # fmt: skip
def test_an_erasure_without_a_whole_key_is_none(changes: dict[str, str] | None) -> None:
    made = Event(event_id="e", event_type=EventType.USER_ERASED, occurred_at=from_ms(0), changes=changes)
    with pytest.raises(InvalidEvent):
        decode_event(encode_event(made))


def test_what_took_effect_before_the_erasure_does_not_come_back() -> None:
    shard = shard_of(
        (event("view", at=NOW - 5), NOW),
        (erasure(NOW), NOW + 10),
        (event("view", at=NOW - 1), NOW + 20),
        (event("cart", at=NOW), NOW + 30),
        (asked(at=NOW, hidden_items=["x"]), NOW + 40),
        (event("view", at=NOW + DAY_MS), NOW),  # the client's clock is ahead of the broker's: it took effect at NOW
    )
    assert shard.state.newest_at == EMPTY_AT
    assert merge_shards([shard], NOW + 50).preferences is None
    assert not merge_shards([shard], NOW + 50).known
    assert shard.sequence == 5
    assert len(shard.accepted.known) == 6, "they are accepted, and count for their items"


def test_whoever_comes_later_is_a_new_user() -> None:
    fresh = [(event("view", at=NOW + 1), NOW + 20), (asked(at=NOW + 2, hidden_items=["x"]), NOW + 30)]
    shard = shard_of((event("cart", at=NOW - 5), NOW), (erasure(NOW), NOW + 10), *fresh)
    found = merge_shards([shard], NOW + 50)
    assert found.known
    assert found.state.encode() == shard_of(*fresh).state.encode()
    assert found.preferences is not None


def test_an_erasure_sent_again_or_an_older_one_does_not_reach_the_new_user() -> None:
    late = NOW + 2 * DAY_MS  # the ring has forgotten the first copy
    for again in (erasure(NOW), erasure(NOW - 1, "e" * 32)):
        shard = shard_of((erasure(NOW), NOW), (event("view", at=NOW + 1), NOW + 1), (again, late))
        assert merge_shards([shard], late).known
        assert shard.erased_at == NOW
    newer = shard_of((erasure(NOW), NOW), (event("view", at=NOW + 1), NOW + 1), (erasure(NOW + 2, "e" * 32), late))
    assert not merge_shards([newer], late).known


def test_shards_are_void_until_each_has_its_own_tombstone() -> None:
    behind = shard_of((event("view", at=NOW - 9), NOW - 9), (asked(at=NOW - 9, hidden_items=["x"]), NOW - 9))
    ahead = shard_of((erasure(NOW), NOW), (event("cart", at=NOW + 1), NOW + 1))
    both = merge_shards([behind, ahead], NOW + 2)
    assert both.state.encode() == ahead.state.encode()
    assert both.preferences is None
    assert newest_erasure([behind, ahead]) == NOW
    fold_user(behind, erasure(NOW), NOW + 5, 9)
    fold_user(behind, event("view", event_id="new", at=NOW + 6), NOW + 6, 10)
    assert merge_shards([behind, ahead], NOW + 7).state.counts.sum() == 2


def test_the_overlay_voids_what_the_fold_has_not_reached() -> None:
    shard = shard_of((event("view", at=NOW - 9), NOW - 9))
    preferences = (NOW - 1, 7, {"hidden_items": ["x"]})
    gone = merge_shards([shard], NOW, overlay=Overlay(preferences, NOW))
    assert not gone.known
    assert newest_erasure([shard], Overlay(erased_at=NOW)) == NOW
    asked_since = merge_shards([shard], NOW, overlay=Overlay((NOW + 1, 7, {"hidden_items": ["x"]}), NOW))
    assert asked_since.preferences is not None
    assert merge_shards([], NOW, overlay=Overlay(preferences)).preferences is not None
    newer_in_the_shard = shard_of((asked(at=NOW, hidden_items=["y"]), NOW))
    held = merge_shards([newer_in_the_shard], NOW, overlay=Overlay(preferences)).preferences
    assert held is not None
    assert held.hidden_items == ["y"]


def test_a_tombstone_never_expires() -> None:
    shard = shard_of((erasure(NOW), NOW))
    assert not CURRENT_VERSION.user_expires(shard)
    assert CURRENT_VERSION.user_expires(shard_of((event("view"), NOW)))
    back = NOW + EXPIRES_AFTER_MS + 1
    fold_user(shard, event("view", at=NOW - 1), back, 1)
    assert shard.erased_at == NOW
    assert not merge_shards([shard], back).known


@MODEST
@given(histories(longest=12), st.integers(0, 12), st.randoms(use_true_random=False), st.integers(1, 4))
def test_however_it_is_spread_she_is_what_came_after(
    history: list[Sent], cut: int, draw: random.Random, count: int
) -> None:
    """The erasure comes through every partition at one place of the log: the rest alone makes her."""
    erased_at = NOW
    before, after = history[:cut], history[cut:]
    shards = [UserShard.empty() for _ in range(count)]
    for sequence, one in enumerate(before):
        fold_user(draw.choice(shards), one.event, one.enqueued_at, sequence)
    for shard in draw.sample(shards, count):
        fold_user(shard, erasure(erased_at), erased_at, 100)
    new = [one for one in after if min(one.event.occurred_at_ms, one.enqueued_at) > erased_at]
    for sequence, one in enumerate(after):
        fold_user(draw.choice(shards), one.event, one.enqueued_at, 200 + sequence)
    as_of = max((one.enqueued_at for one in history), default=NOW)
    merged, expected = merge_shards(shards, as_of).state, state_of(new)
    assert merged.counts.tolist() == expected.counts.tolist()
    assert merged.lists == expected.lists


def test_an_erasure_is_a_chunk_of_its_own() -> None:
    bodies = [encode_event(one) for one in (event("view"), event("cart"), erasure(), erasure(), event("view"))]
    entries = [fresh_entry(LogRecord("s", 0, number, NOW, body)) for number, body in enumerate(bodies)]
    lengths = []
    while entries:
        lengths.append(len(split_at_erasure(entries)))
        entries = entries[lengths[-1] :]
    assert lengths == [2, 1, 1, 1]
    escaped = fresh_entry(LogRecord("s", 0, 0, NOW, bodies[2].replace(b"user_erased", b"user\\u005ferased")))
    assert len(split_at_erasure([escaped, escaped])) == 1
