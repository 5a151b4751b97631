"""The event's definition under attack, its ids, and the partitioner every producer shares."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidEvent, InvalidIdentifier
from shared.events import (
    MAX_EVENT_BYTES,
    MAX_ID_BYTES,
    Event,
    EventSource,
    EventType,
    UserId,
    _murmur2,
    check_id,
    decode_event,
    encode_event,
    event_from_fields,
    from_ms,
    id_hash,
    partition_of,
    to_ms,
)


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        # Known answers of Apache Kafka's UtilsTest.testMurmur2.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, signed: int) -> None:
    assert _murmur2(data) == signed & 0xFFFFFFFF


@given(st.text(max_size=40), st.integers(1, 64))
def test_a_partition_is_within_the_count(key: str, count: int) -> None:
    assert 0 <= partition_of(key, count) < count


def test_the_sign_bit_is_masked_before_the_remainder() -> None:
    assert partition_of("21", 7) == (-973932308 & 0x7FFFFFFF) % 7


def test_a_source_of_ours_names_the_partitions_of_every_count_it_had() -> None:
    source = EventSource("live-1", (4, 8))
    assert source.partitions() == range(8)
    assert source.partitions_of("u") == tuple(sorted({partition_of("u", 4), partition_of("u", 8)}))
    assert EventSource("foreign", (3,), ours=False).partitions_of("u") == (0, 1, 2)


@pytest.mark.parametrize("value", ["a", "é" * 64, "x" * MAX_ID_BYTES, "..", "{x}", "a b", "\u200b", "0"])
def test_ids_that_may_be(value: str) -> None:
    assert check_id(value, "user_id") == value


@pytest.mark.parametrize(
    "value", ["", "x" * (MAX_ID_BYTES + 1), "é" * 65, "a/b", "/", "a\0b", "\n", "\x7f", "\x85", "\ud800"]
)
def test_ids_that_may_not_be(value: str) -> None:
    with pytest.raises(InvalidIdentifier):
        check_id(value, "user_id")


def fields(**changes: Any) -> dict[str, Any]:
    base = {
        "event_id": "e", "event_type": "view", "occurred_at": "2026-05-01T10:00:00.123Z", "user_id": "u", "item_id": "i"
    }  # fmt: skip
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": None}, {"event_id": ""}, {"event_id": "a/b"}, {"event_id": 7},
        {"event_type": "buy"}, {"event_type": None}, {"occurred_at": None}, {"occurred_at": "2026-05-01T10:00:00"},
        {"occurred_at": 5}, {"occurred_at": "yesterday"}, {"occurred_at": "0001-01-01T00:00:00+23:59"},
        {"occurred_at": "9999-12-31T23:59:59-23:59"}, {"user_id": None}, {"item_id": None}, {"user_id": "x" * 129},
        {"session_id": "a/b"}, {"recommendation_id": ""}, {"quantity": 0}, {"quantity": 1.5}, {"quantity": 10**7},
        {"price_cents": -1}, {"price_cents": 10**12}, {"schema_version": 2}, {"unknown": 1}, {"changes": {"stock": 1}},
        {"context": {"a": 1}}, {"context": {str(n): "x" for n in range(21)}}, {"context": {"a": "x" * 201}},
        {"event_type": "item_updated", "changes": {"stock": 1}},
        {"event_type": "item_updated", "user_id": None},
        {"event_type": "item_updated", "user_id": None, "changes": {"stock": -1}},
        {"event_type": "item_updated", "user_id": None, "changes": {"colour": "red"}},
        {"event_type": "item_updated", "user_id": None, "changes": {"arrived_at": "0001-01-01T00:00:00+23:59"}},
        {"event_type": "item_updated", "user_id": None, "changes": {"arrived_at": "9999-12-31T23:59:59-23:59"}},
        {"event_type": "preferences_set", "changes": {}},
        {"event_type": "preferences_set", "item_id": None, "changes": {"personalised": "no"}},
        {"event_type": "user_erased"}, {"event_type": "user_erased", "item_id": None, "changes": {}},
    ],
)  # fmt: skip
def test_events_that_break_the_definition(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent):
        event_from_fields(fields(**changes))
    with pytest.raises(InvalidEvent):
        decode_event(json.dumps(fields(**changes)).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"event_type": "purchase", "quantity": 2, "price_cents": 0, "session_id": "s", "recommendation_id": "r"},
        {"event_type": "item_updated", "user_id": None, "changes": {"title": "T", "brand": None, "categories": ["a"]}},
        {"event_type": "preferences_set", "item_id": None, "changes": {"hidden_items": ["i"]}},
        {"event_type": "user_erased", "item_id": None}, {"context": {"device": "phone"}},
    ],
)  # fmt: skip
def test_events_survive_the_wire(changes: dict[str, Any]) -> None:
    event = event_from_fields(fields(**changes))
    assert decode_event(encode_event(event)) == event


@given(st.binary(max_size=300))
def test_bytes_decode_or_are_refused(body: bytes) -> None:
    refused_or_event(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from([*fields(), "changes", "context", "quantity", "price_cents", "schema_version"]), JSON)
def test_any_json_in_any_field_decodes_or_is_refused(name: str, value: Any) -> None:
    refused_or_event(json.dumps(fields() | {name: value}).encode())


@given(st.text(max_size=140))
def test_ids_of_any_text_decode_to_themselves_or_are_refused(value: str) -> None:
    event = refused_or_event(json.dumps(fields(user_id=value)).encode())
    assert event is None or event.user_id == value


def refused_or_event(body: bytes) -> Event | None:
    try:
        event = decode_event(body)
    except InvalidEvent:
        return None
    assert event.partition_key
    assert decode_event(encode_event(event)) == event
    return event


@pytest.mark.parametrize("body", [b"[" * 10_000, b'{"a":' * 5_000, b"1" * 20_000, b'"\\ud800"', b"\xff" * 9])
def test_hostile_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidEvent):
        decode_event(body)


def test_a_body_over_the_limit_is_refused_before_it_is_parsed() -> None:
    body = json.dumps(fields()).encode()
    assert decode_event(body + b" " * (MAX_EVENT_BYTES - len(body))).user_id == "u"
    with pytest.raises(InvalidEvent, match="bytes"):
        decode_event(body + b" " * (MAX_EVENT_BYTES - len(body) + 1))


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_instants_keep_their_milliseconds(at: int) -> None:
    assert to_ms(from_ms(at)) == at


def test_an_instant_with_an_offset_is_the_same_instant() -> None:
    event = event_from_fields(fields(occurred_at="2026-05-01T12:00:00.123+02:00"))
    assert event.occurred_at_ms == to_ms(datetime(2026, 5, 1, 10, 0, 0, 123000, tzinfo=UTC))


def test_the_key_is_the_users_but_for_item_updated() -> None:
    assert event_from_fields(fields()).partition_key == "u"
    update = Event(event_id="e", event_type=EventType.ITEM_UPDATED, occurred_at=from_ms(0), item_id="i", changes={})  # type: ignore[arg-type] # an ItemId is a str
    assert update.partition_key == "i"
    erased = Event(event_id="e", event_type=EventType.USER_ERASED, occurred_at=from_ms(0), user_id=UserId("u"))
    assert erased.partition_key == "u"


def test_the_hash_of_an_id_is_pinned() -> None:
    assert id_hash("item-1") == 8_406_168_460_641_299_428, "stored state and bundles name items by it"
    assert id_hash("item-1") != id_hash("item-2")
