from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import CorruptRecord
from shared.releases.lists import NeighbourList, NightlyRecord, decode_list, decode_record, release_tag
from tests.unit.builders import MANY, NOW

INDEXES = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20)
FLOATS = st.floats(width=32, allow_nan=False)


@st.composite
def records(draw: st.DrawFn) -> NightlyRecord:
    indexes = draw(INDEXES)
    return NightlyRecord(
        newest_at=draw(st.integers(-(2**63), 2**63 - 1)),
        actions_count=draw(st.integers(0, 2**40)),
        indexes=np.array(indexes, np.int32),
        scores=np.array(draw(st.lists(FLOATS, min_size=len(indexes), max_size=len(indexes))), np.float32),
        vector=np.array(draw(st.lists(st.floats(width=16, allow_nan=False), max_size=9)), np.float32),
    )


@st.composite
def neighbour_lists(draw: st.DrawFn) -> NeighbourList:
    indexes, columns = draw(INDEXES), draw(st.integers(0, 3))
    values = [draw(st.lists(FLOATS, min_size=len(indexes), max_size=len(indexes))) for _ in range(columns)]
    return NeighbourList(np.array(indexes, np.int32), np.array(values, np.float32).reshape(columns, len(indexes)))


@MANY
@given(records())
def test_a_record_survives_its_bytes(record: NightlyRecord) -> None:
    data = record.encode("2026-11-01")
    read = decode_record("2026-11-01", data)
    assert read.encode("2026-11-01") == data
    assert (read.newest_at, read.actions_count) == (record.newest_at, record.actions_count)
    for name in ("indexes", "scores", "vector"):
        assert getattr(read, name).tobytes() == getattr(record, name).tobytes()


@MANY
@given(neighbour_lists())
def test_a_list_survives_its_bytes(one: NeighbourList) -> None:
    data = one.encode("r")
    read = decode_list("r", data)
    assert read.encode("r") == data
    assert read.indexes.tobytes() == one.indexes.tobytes()
    assert read.columns.tobytes() == one.columns.tobytes()
    assert read.columns.shape == one.columns.shape


@MANY
@given(records(), neighbour_lists(), st.data())
def test_a_byte_that_differs_or_is_missing_or_too_many_is_found(
    record: NightlyRecord, one: NeighbourList, data: st.DataObject
) -> None:
    for whole, decode in ((record.encode("r"), decode_record), (one.encode("r"), decode_list)):
        place = data.draw(st.integers(0, len(whole) - 1))
        flipped = bytearray(whole)
        flipped[place] ^= data.draw(st.integers(1, 255))
        for broken in (bytes(flipped), whole[:place], whole + b"\0"):
            with pytest.raises(CorruptRecord):
                decode("r", broken)


@MANY
@given(records(), neighbour_lists())
def test_another_release_or_another_kind_is_not_read(record: NightlyRecord, one: NeighbourList) -> None:
    for foreign in (record.encode("yesterday"), one.encode("yesterday")):
        for decode in (decode_record, decode_list):
            with pytest.raises(CorruptRecord, match="another release"):
                decode("today", foreign)
    with pytest.raises(CorruptRecord):
        decode_list("r", record.encode("r"))


def test_a_list_is_no_record() -> None:
    with pytest.raises(CorruptRecord):
        decode_record("r", NeighbourList(np.arange(9, dtype=np.int32), np.ones((1, 9), np.float32)).encode("r"))
    with pytest.raises(CorruptRecord):
        decode_record("r", NeighbourList(np.empty(0, np.int32), np.empty((1, 0), np.float32)).encode("r"))


def test_a_hundred_candidates_and_a_factor_of_64_take_under_a_kilobyte() -> None:
    record = NightlyRecord(
        NOW, 7, np.arange(100, dtype=np.int32), np.ones(100, np.float32), np.full(64, 0.1, np.float32)
    )
    assert len(record.encode("r")) == 12 + 20 + 100 * 8 + 64 * 2
    assert decode_record("r", record.encode("r")).vector == pytest.approx(record.vector, rel=1e-3)


def test_tags_tell_releases_apart() -> None:
    assert len({release_tag(f"release-{number}") for number in range(1000)}) == 1000
    assert len(release_tag("r")) == 8
