"""Packed lists against sets of tuples: the bytes must order, bound and merge as the entries do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.features.entries import (
    ENTRY_BYTES,
    Entry,
    add_entry,
    entry_columns,
    merge_entries,
    pack_entry,
    unpack_entries,
)
from tests.unit.builders import MANY, NOW

YEAR_1, YEAR_8000 = -62_135_596_800_000, 190_000_000_000_000
ENTRIES = st.tuples(
    st.sampled_from([YEAR_1, -1, 0, NOW, NOW + 1, YEAR_8000]) | st.integers(0, 5),
    st.sampled_from(["a", "b", "\N{SNOWMAN}", "event-1"]),
    st.sampled_from([0, 1, 2**63, 2**64 - 1]),
)


def packed_of(entries: list[tuple[int, str, int]], k: int = 99) -> bytes:
    packed = b""
    for one in entries:
        packed = add_entry(packed, pack_entry(*one), k)
    return packed


def as_entries(entries: list[tuple[int, str, int]]) -> list[Entry]:
    return [unpack_entries(pack_entry(*one))[0] for one in entries]


@MANY
@given(st.lists(ENTRIES, max_size=12), st.lists(ENTRIES, max_size=12), st.integers(1, 6))
def test_lists_keep_the_greatest_of_the_union(
    left: list[tuple[int, str, int]], right: list[tuple[int, str, int]], k: int
) -> None:
    mine, theirs = packed_of(left, k), packed_of(right, k)
    assert unpack_entries(mine) == sorted(set(as_entries(left)))[-k:]
    assert unpack_entries(merge_entries(mine, theirs, k)) == sorted({*as_entries(left), *as_entries(right)})[-k:]
    assert merge_entries(mine, theirs, k) == merge_entries(theirs, mine, k)
    assert merge_entries(mine, b"", k) == mine


@MANY
@given(ENTRIES)
def test_an_entry_holds_what_it_was_made_of(made: tuple[int, str, int]) -> None:
    at, event_id, item = made
    packed = pack_entry(at, event_id, item)
    assert len(packed) == ENTRY_BYTES
    assert unpack_entries(packed)[0][::2] == (at, item)
    items, times = entry_columns(packed)
    assert (items, times.tolist()) == ([item], [at])


def test_no_entries_are_no_columns() -> None:
    items, times = entry_columns(b"")
    assert (items, times.tolist()) == ([], [])


def test_two_events_of_one_instant_are_two_entries_and_the_same_event_is_one() -> None:
    entries = [(NOW, f"event-{number}", 7) for number in range(50)]
    assert len(unpack_entries(packed_of(entries * 2))) == 50


def test_a_time_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Exception, match="format"):
        pack_entry(2**60, "a", 1)
