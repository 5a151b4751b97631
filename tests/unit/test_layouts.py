"""A layout is an argument: shards of several layouts live side by side, and a layout outlives the code that had it."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given

from shared.errors import CorruptRecord
from shared.events import EventType
from shared.features import definitions
from shared.features.aggregations import DAY_MS, EXPIRES_AFTER_MS, Amount, Count, Decayed, Earliest, LastK, Layout
from shared.features.definitions import ITEM_LAYOUT, USER_LAYOUT
from shared.features.fold import ItemCounters, fold_item, fold_user
from shared.features.shard import UserShard, merge_shards
from shared.features.state import FORMAT
from tests.unit.builders import MODEST, NOW, Sent, event, histories, sent

VIEWS, BASKETS = (EventType.VIEW,), (EventType.CART, EventType.REMOVE_FROM_CART)
SMALL = Layout([Decayed(VIEWS, DAY_MS), Count(BASKETS), Earliest(VIEWS), LastK(BASKETS, 2)])


@pytest.mark.parametrize("layout", [USER_LAYOUT, ITEM_LAYOUT, SMALL, Layout([])])
def test_a_description_survives_json_and_makes_the_same_layout(layout: Layout) -> None:
    described = json.loads(json.dumps(layout.describe()))
    made = Layout.from_description(described)
    assert repr(made) == repr(layout)
    assert made.slot == layout.slot
    assert made.describe() == described
    assert repr(pickle.loads(pickle.dumps(layout))) == repr(layout)
    assert repr(Layout.from_description(described[::-1])) == repr(layout), "the order of a description means nothing"


KNOWN: dict[str, Any] = {"kind": "decayed", "events": ["view"], "half_life_ms": 1000, "amount": "one"}


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "hyperloglog"},
        {"kind": None},
        {"kind": []},
        {"events": ["teleport"]},
        {"events": "view"},
        {"half_life_ms": 0},
        {"half_life_ms": "long"},
        {"amount": "weight"},
        {"since": "midnight"},
        {"kind": "count"},
        {"kind": "last_k", "half_life_ms": 5},
    ],
)
def test_an_aggregation_this_code_does_not_know_is_refused(changed: dict[str, Any]) -> None:
    assert Layout.from_description([KNOWN]).decayed == (Decayed(VIEWS, 1000, Amount.ONE),)
    with pytest.raises(CorruptRecord):
        Layout.from_description([KNOWN, KNOWN | changed])


@pytest.mark.parametrize("missing", ["kind", "events", "half_life_ms", "amount"])
def test_a_description_says_everything(missing: str) -> None:
    with pytest.raises(CorruptRecord):
        Layout.from_description([{name: value for name, value in KNOWN.items() if name != missing}])


@MODEST
@given(histories())
def test_a_shard_of_another_layout_folds_merges_and_reads_as_its_own(history: list[Sent]) -> None:
    users = [UserShard.empty(SMALL), UserShard.empty(SMALL)]
    counters = ItemCounters.empty(SMALL)
    for sequence, one in enumerate(history):
        fold_user(users[sequence % 2], one.event, one.enqueued_at, sequence)
        users[sequence % 2] = UserShard.decode(users[sequence % 2].encode(), SMALL)
        fold_item(counters, one.event, one.enqueued_at)
    baskets = [one for one in history if one.kind in BASKETS]
    merged = merge_shards(users, NOW, SMALL).state
    assert merged.layout is SMALL
    assert merged.counts.tolist() == counters.state.counts.tolist() == [len(baskets)]
    assert merged.lists == counters.state.lists
    assert ItemCounters.decode(counters.encode(), SMALL).encode() == counters.encode()


def test_what_expires_or_is_erased_is_empty_of_its_own_layout() -> None:
    back = NOW + EXPIRES_AFTER_MS + 1
    for ends in (Sent(event("user_erased", item=None), NOW + 1), sent("remove_from_cart", at=back)):
        shard = UserShard.empty(SMALL)
        fold_user(shard, event("cart"), NOW, 0)
        fold_user(shard, ends.event, ends.enqueued_at, 1)
        assert shard.state.layout is SMALL
        assert shard.state.counts.tolist() == [int(ends.kind is EventType.REMOVE_FROM_CART)]


def test_bytes_of_one_layout_are_not_read_as_anothers() -> None:
    shard = UserShard.empty()
    fold_user(shard, event("view"), NOW, 0)
    with pytest.raises(CorruptRecord):
        UserShard.decode(shard.encode(), SMALL)


def test_another_format_of_the_bytes_is_another_state_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert definitions.version_name(USER_LAYOUT, ITEM_LAYOUT) == definitions.STATE_VERSION
    assert definitions.version_name(USER_LAYOUT, SMALL) != definitions.STATE_VERSION
    monkeypatch.setattr(definitions, "FORMAT", FORMAT + 1)
    assert definitions.version_name(USER_LAYOUT, ITEM_LAYOUT) != definitions.STATE_VERSION
