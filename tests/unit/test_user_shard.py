from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import CorruptRecord
from shared.events import EventType, Preferences, UserId
from shared.features.aggregations import DAY_MS, EXPIRES_AFTER_MS, HOUR_MS, Count
from shared.features.definitions import USER_LAYOUT
from shared.features.fold import fold_user
from shared.features.replay import LoggedEvent, Replay, UserShards
from shared.features.shard import RING_SIZE, RING_SPAN_MS, AcceptedIds, UserShard, merge_shards
from shared.features.state import EMPTY_AT, FORMAT
from tests.unit.builders import MANY, MODEST, NOW, Sent, asked, event, histories, sent, shard_bytes, state_of, updated

VIEWS = USER_LAYOUT.slot[Count((EventType.VIEW,))]


def folded(history: list[Sent], *, through_bytes_after: frozenset[int] = frozenset()) -> UserShard:
    shard = UserShard.empty()
    for sequence, one in enumerate(history):
        fold_user(shard, one.event, one.enqueued_at, sequence)
        if sequence in through_bytes_after:
            shard = UserShard.decode(shard.encode())
    return shard


class NaiveRing:
    """Scans the whole past: an id is known when it was accepted among the last 256 accepted, at most 24 h ago."""

    def __init__(self) -> None:
        self.accepted: list[tuple[int, int]] = []

    def accepts(self, event_hash: int, enqueued_at: int) -> bool:
        recent = [known for known, at in self.accepted[-RING_SIZE:] if enqueued_at - at <= RING_SPAN_MS]
        if event_hash in recent:
            return False
        self.accepted.append((event_hash, enqueued_at))
        return True


@MANY
@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 9), st.sampled_from([0, 1, HOUR_MS, 9 * HOUR_MS])))
)
def test_the_ring_says_what_a_scan_of_the_past_says(offers: list[tuple[int, int]]) -> None:
    ring, naive, at = AcceptedIds(), NaiveRing(), NOW
    for event_hash, gap in offers:
        at += gap
        assert ring.accepts(event_hash, at) == naive.accepts(event_hash, at)


def test_the_ring_keeps_the_last_256_and_no_more() -> None:
    ring, naive, numbers = AcceptedIds(), NaiveRing(), random.Random(1)
    for number in range(3000):
        event_hash = numbers.randrange(320)
        assert ring.accepts(event_hash, NOW + number) == naive.accepts(event_hash, NOW + number)
    assert len(folded([sent("view", at=NOW + n) for n in range(RING_SIZE + 50)]).encode()) < 8000


def test_bytes_of_two_neighbours_that_look_like_an_id_are_none() -> None:
    ring = AcceptedIds()
    assert ring.accepts(2**63 + 1, NOW)
    assert ring.accepts(2**62 + 5, NOW)
    for start in range(1, 14):
        looks_like = int.from_bytes(ring.packed[start : start + 8])
        assert AcceptedIds(ring.packed).accepts(looks_like, NOW + 1)
    assert not ring.accepts(2**62 + 5, NOW + 1)


def test_the_rings_day_ends_to_the_millisecond() -> None:
    for later, accepted in ((RING_SPAN_MS, False), (RING_SPAN_MS + 1, True)):
        ring = AcceptedIds()
        assert ring.accepts(7, NOW)
        assert ring.accepts(8, NOW + 1)
        assert ring.accepts(7, NOW + later) is accepted


def test_a_brokers_clock_that_steps_back_hides_no_id_that_is_a_day_old() -> None:
    ring = AcceptedIds()
    for event_hash, at in ((7, NOW + 2 * HOUR_MS), (8, NOW), (9, NOW + 1)):
        assert ring.accepts(event_hash, at)
    assert ring.accepts(8, NOW + RING_SPAN_MS + 1)
    assert list(ring.known.items()) == [(7, NOW + 2 * HOUR_MS), (9, NOW + 1), (8, NOW + RING_SPAN_MS + 1)]
    assert not ring.accepts(9, NOW + RING_SPAN_MS + 1)


@MODEST
@given(histories(), st.lists(st.integers(0, 24)), st.sets(st.integers(0, 60)))
def test_cutting_the_log_elsewhere_changes_nothing(history: list[Sent], again: list[int], cuts: set[int]) -> None:
    repeated = [*history, *(history[place] for place in again if place < len(history))]
    repeated = [Sent(one.event, NOW + number * 3 * HOUR_MS) for number, one in enumerate(repeated)]
    assert shard_bytes(folded(repeated, through_bytes_after=frozenset(cuts))) == shard_bytes(folded(repeated))


def test_a_clients_duplicate_counts_once_and_still_moves_the_shard_on() -> None:
    shard, twice = UserShard.empty(), event("view", event_id="twice")
    assert fold_user(shard, twice, NOW, 5)
    before = shard.state.encode()
    assert not fold_user(shard, twice, NOW + 1, 6)
    assert shard.state.encode() == before
    assert (shard.sequence, shard.enqueued_at) == (6, NOW + 1)


def test_the_newest_preferences_win_in_any_order() -> None:
    asks = [
        asked(at=NOW, event_id="first", hidden_items=["old"]),
        asked(at=NOW + 5, event_id="new", max_price_cents=500),
        asked(at=NOW + 5, event_id="tie", personalised=False),
    ]
    shards = set()
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)):
        shard = UserShard.empty()
        for sequence, place in enumerate(order):
            fold_user(shard, asks[place], NOW + 10, sequence)
        assert merge_shards([shard], NOW).preferences in (
            Preferences(max_price_cents=500),
            Preferences(personalised=False),
        )
        shards.add(repr(merge_shards([shard, UserShard.empty()], NOW).preferences))
    assert len(shards) == 1
    assert "old" not in shards.pop()


def test_preferences_stand_when_behaviour_has_expired() -> None:
    shard = folded([sent("view"), Sent(asked(hidden_brands=["Acme"]), NOW)])
    later = merge_shards([shard], NOW + EXPIRES_AFTER_MS + 1)
    assert later.preferences == Preferences(hidden_brands=["Acme"])
    assert later.state.newest_at == EMPTY_AT
    assert merge_shards([shard], NOW + EXPIRES_AFTER_MS).state.counts[VIEWS] == 1


def test_what_expires_at_read_expires_in_the_fold() -> None:
    back = NOW + EXPIRES_AFTER_MS + 1
    returned = folded([sent("view", item="old"), sent("view", at=back, item="new")])
    assert returned.state.counts[VIEWS] == 1
    assert [len(held) for held in returned.state.lists if held] == [1]
    in_time = folded([sent("view", item="old"), sent("view", at=back - 1, item="new")])
    assert in_time.state.counts[VIEWS] == 2


def test_an_erasure_leaves_mark_and_ring() -> None:
    shard = folded([sent("view", event_id="seen"), Sent(asked(min_price_cents=1), NOW)])
    fold_user(shard, event("user_erased", item=None), NOW + 1, 9)
    assert merge_shards([shard], NOW + 1).preferences is None
    assert shard.state.newest_at == EMPTY_AT
    assert shard.sequence == 9
    assert not fold_user(shard, event("view", event_id="seen"), NOW + 2, 10)


@MODEST
@given(histories(longest=15), st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_user_in_several_shards_is_the_user_in_one(history: list[Sent], count: int, random: random.Random) -> None:
    shards = [UserShard.empty() for _ in range(count)]
    for sequence, one in enumerate(history):
        fold_user(random.choice(shards), one.event, one.enqueued_at, sequence)
    as_of = max((one.enqueued_at for one in history), default=NOW)
    merged, whole = merge_shards(shards, as_of).state, state_of(history)
    assert merged.lists == whole.lists
    assert merged.counts.tobytes() == whole.counts.tobytes()
    assert merged.earliest.tobytes() == whole.earliest.tobytes()
    assert merged.decayed == pytest.approx(whole.decayed, rel=1e-9, abs=1e-9)


@MANY
@given(st.data())
def test_bytes_that_are_cut_short_or_of_another_format_are_refused(data: st.DataObject) -> None:
    whole = folded([sent("view"), sent("cart"), Sent(asked(hidden_items=["x"]), NOW)]).encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CorruptRecord):
        UserShard.decode(whole[:cut])
    with pytest.raises(CorruptRecord):
        UserShard.decode(bytes([data.draw(st.integers(0, 255).filter(lambda form: form != FORMAT))]) + whole[1:])


def test_bytes_that_go_on_are_refused() -> None:
    with pytest.raises(CorruptRecord):
        UserShard.decode(folded([sent("view")]).encode() + b"\0")


def test_a_replay_folds_users_and_items_and_counts_a_duplicate_for_neither() -> None:
    replay = Replay()
    view = event("view", user="ann", item="cup", event_id="one")
    log = [updated("cup", at=NOW, title="Cup"), view, view, event("preferences_set", user="bob", item=None, changes={})]
    accepted = [
        replay.fold(LoggedEvent("live-1", 0, sequence, NOW + sequence, one)) for sequence, one in enumerate(log)
    ]
    assert accepted == [True, True, False, True]
    assert replay.users.user_ids() == ["ann", "bob"]
    row = replay.items.row_of_id("cup")
    assert row is not None
    assert replay.items.counters.counts[row].sum() == 1
    assert replay.users.shopper("ann", NOW).state.counts.sum() == 1
    assert replay.users.shopper("nobody", NOW).state.newest_at == EMPTY_AT


def test_duplicates_are_known_within_one_partition_only() -> None:
    users, view = UserShards(), event("view", user=UserId("ann"), event_id="one")
    assert users.fold(LoggedEvent("live-1", 0, 0, NOW, view))
    assert users.fold(LoggedEvent("live-1", 1, 0, NOW, view))
    assert not users.fold(LoggedEvent("live-1", 1, 1, NOW + DAY_MS, view))
    assert sorted(users.shards("ann")) == [("live-1", 0), ("live-1", 1)]
