"""Compaction erases: of an erased user's rows only what counts for items is left, whatever stops it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from batch.compact_lake import compact
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.user_keys import keyed_with
from shared.errors import ConfigurationError, LakeConflict
from shared.events import Event, EventType, ItemId, UserId, encode_event, from_ms
from shared.ingest.erased_users import read_erasures
from shared.ingest.lake import (
    ShopSettings,
    highest_sealed,
    publish_history,
    read_manifest,
    read_range,
    read_rows,
    write_sealed,
)
from shared.ingest.lake_table import unnumbered_table
from shared.ingest.logged_body import decode_logged
from shared.ports import LandingRow, Mark, Verdict
from tests.integration.traces import files_with, word_of
from tests.unit.lake_builders import DAY, LIVE, START, Watched, row

SECRET = "a secret"
HER = 'zoë "o\'hara" 7f3a'
KEY_OF = keyed_with(SECRET)
AT = START + 2 * DAY
"""The erasure's instant."""
NAMED = word_of(HER, but_not_before="2")
KEPT = ("source", "partition", "sequence", "enqueued_at", "verdict", "event_type", "item_id", "occurred_at", "quantity",
        "price_cents")  # fmt: skip


def act(user: str, at: int, number: int = 0, **changed: Any) -> Event:
    values: dict[str, Any] = {
        "event_id": f"{user} did {at} {number}", "event_type": EventType.PURCHASE, "occurred_at": from_ms(at),
        "user_id": UserId(user), "item_id": ItemId(f"item-{number % 3}"), "session_id": f"session of {user}",
        "quantity": 2, "price_cents": 799, "recommendation_id": f"shown-to {user}", "context": {"page": user[:100]},
    }  # fmt: skip
    return Event(**(values | changed))


def erasure(user: str = HER, at: int = AT, receipt: str = "ab" * 16) -> Event:
    return Event(
        event_id=f"erasure-{receipt}", event_type=EventType.USER_ERASED, occurred_at=from_ms(at),
        changes={"user_key": KEY_OF(user), "receipt": receipt},
    )  # fmt: skip


def live(sequence: int, event: Event | bytes, at: int, partition: int = 0, **changed: Any) -> LandingRow:
    body = event if isinstance(event, bytes) else encode_event(event)
    return row(sequence, at, partition, body=body, **changed)


def users() -> list[str]:
    return [HER, HER + "2", HER[:-1], "ann"]


def fill(root: Path) -> FolderBlobStore:
    """History of two days, a night's live rows, and sealed ones; she is in each of them."""
    blobs = FolderBlobStore(root)
    days = [act(users()[n % 4], START + n * DAY // 10, n) for n in range(20)]
    publish_history(blobs, "history-a", 2, ShopSettings(), [unnumbered_table(days)])
    write_sealed(blobs, [live(n, act(users()[n % 4], START + DAY + n, n), START + DAY + n) for n in range(8)])
    compact(blobs, LIVE, key_of=KEY_OF)
    later = [live(n, act(users()[n % 4], AT - 100 + n, n), AT - 100 + n) for n in range(8, 16)]
    write_sealed(blobs, later)
    write_sealed(blobs, [live(n, act(HER, AT - 50, n), AT - 50 + n, partition=1) for n in range(3)])
    return blobs


def erase(blobs: FolderBlobStore) -> None:
    for partition, sequence in ((0, 16), (1, 3)):
        write_sealed(blobs, [live(sequence, erasure(), AT + 5, partition)])


def anonymous(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(one.values()) for one in table.select(KEPT).to_pylist()]


def others(table: pa.Table) -> list[Any]:
    return [one for one in table.to_pylist() if one["user_id"] not in {HER, None}]


def test_nothing_names_her_any_more_and_all_else_is_as_it_was(tmp_path: Path) -> None:
    blobs = fill(tmp_path)
    before = read_rows(blobs)
    assert len(files_with(tmp_path, NAMED)) >= 5, "the search can fail"
    erase(blobs)
    report = compact(blobs, LIVE, key_of=KEY_OF)
    assert report.erasures == 1
    assert report.files_redacted >= 2
    after = read_rows(blobs)
    table = after.filter(pa.compute.not_equal(after["event_type"], "user_erased"))
    assert anonymous(table) == anonymous(before)
    assert others(table) == others(before)
    assert sum(one["user_id"] is None for one in table.to_pylist()) == 5 + 2 + 2 + 3
    assert files_with(tmp_path, word_of(HER + "2")), "whose id begins as hers is still there"
    assert files_with(tmp_path, word_of(HER[:-1])), "and whose id hers begins with"
    assert not files_with(tmp_path, NAMED)


def test_a_redacted_row_is_told_as_an_event_of_its_item(tmp_path: Path) -> None:
    blobs = fill(tmp_path)
    erase(blobs)
    compact(blobs, LIVE, key_of=KEY_OF)
    (found,) = read_range(blobs, "live-1", 1, 1, 1)
    event = decode_logged(found.body)
    assert (event.event_id, event.user_id, event.subject, event.session_id, event.context) == (
        "",
        None,
        None,
        None,
        None,
    )
    assert (event.item_id, event.event_type, event.quantity) == ("item-1", EventType.PURCHASE, 2)


def test_it_may_be_killed_before_any_change(tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole")
    erase(whole)
    unredacted = read_rows(whole)
    compact(whole, LIVE, key_of=KEY_OF)
    expected = read_rows(whole)
    kills = 0
    for kill in range(200):
        root = tmp_path / f"kill{kill}"
        erase(fill(root))
        try:
            compact(Watched(root, kill), LIVE, key_of=KEY_OF)
        except KeyboardInterrupt:
            kills += 1
        else:
            break
        blobs = FolderBlobStore(root)
        assert read_rows(blobs) in (unredacted, expected), "the old lake or the new one"
        compact(blobs, LIVE, key_of=KEY_OF)
        assert read_rows(blobs).equals(expected)
        left, right = read_manifest(blobs), read_manifest(whole)
        assert left is not None
        assert right is not None
        assert msgspec.structs.replace(left, left_over=()) == msgspec.structs.replace(right, left_over=())
        assert not files_with(root, NAMED), kill
    assert kills >= 10


def test_two_at_once_are_a_conflict_and_the_loser_changes_nothing(tmp_path: Path) -> None:
    blobs = fill(tmp_path)
    erase(blobs)

    class Overtaken(FolderBlobStore):
        done = False

        def write(self, name: str, data: bytes) -> None:
            super().write(name, data)
            if not self.done and name.startswith("lake/erased/"):
                self.done = True
                compact(blobs, LIVE, key_of=KEY_OF)

    with pytest.raises(LakeConflict):
        compact(Overtaken(tmp_path), LIVE, key_of=KEY_OF)
    after = read_rows(blobs)
    assert sum(one is None for one in after["user_id"].to_pylist()) == 12 + 2
    write_sealed(blobs, [live(17, act("ann", AT + DAY), AT + DAY)])
    compact(blobs, LIVE, key_of=KEY_OF)
    assert not files_with(tmp_path, NAMED)


def test_a_night_without_erasures_reads_no_file_for_them(tmp_path: Path) -> None:
    blobs = fill(tmp_path)
    erase(blobs)
    compact(blobs, LIVE, key_of=KEY_OF)
    watched = Watched(tmp_path)
    compact(watched, LIVE, key_of=KEY_OF)
    assert not [name for name in watched.was_read if name.endswith(".parquet")]
    write_sealed(blobs, [live(17, act("ann", AT + 5 * DAY), AT + 5 * DAY)])
    compact(watched, LIVE, key_of=KEY_OF)
    assert not [name for name in watched.was_read if name.endswith(".parquet")]


def test_what_comes_later_of_before_goes_and_what_she_does_afterwards_stays(tmp_path: Path) -> None:
    blobs = fill(tmp_path)
    erase(blobs)
    compact(blobs, LIVE, key_of=KEY_OF)
    again = [
        live(17, act(HER, AT - 3 * DAY, 17), AT + DAY),
        live(18, act(HER, AT, 18), AT + DAY + 1, verdict=Verdict.DUPLICATE),
        live(19, act(HER, AT + 1, 19), AT + DAY + 2),
        live(20, act(HER, AT + 3 * DAY, 20), AT + DAY + 3, verdict=Verdict.DEAD, reason=f"{HER} is ahead"),
    ]
    name = write_sealed(blobs, again[:2])
    other = write_sealed(blobs, again[2:])
    compact(blobs, LIVE, key_of=KEY_OF)
    rows = {one["sequence"]: one for one in read_rows(blobs, sources=["live-1"]).to_pylist() if not one["partition"]}
    assert [rows[number]["user_id"] for number in (17, 18, 19, 20)] == [None, None, HER, HER]
    assert [rows[number]["verdict"] for number in (17, 18)] == ["accepted", "duplicate"]
    left = set(blobs.names("lake/sealed/"))
    assert name not in left, "what held her goes at once"
    assert other in left, "what she did as a new user is kept like everybody's"


@pytest.mark.parametrize(
    "body",
    [
        b'{"event_id":"x","user_id":"ann\\u00e9","item_id":12}',
        b'{"a: "ann\xc3\xa9", "user":1',
        b'[{"userId": "ann\xc3\xa9"}]',
    ],
)
def test_a_dead_letter_of_hers_loses_its_body_and_reason(tmp_path: Path, body: bytes) -> None:
    blobs = FolderBlobStore(tmp_path)
    dead: dict[str, Any] = {"verdict": Verdict.DEAD, "reason": "undecodable: anné"}
    rows = [live(0, body, AT - 5, **dead), live(1, body.replace(b"ann", b"bob"), AT - 5, **dead)]
    write_sealed(blobs, [*rows, live(2, erasure("anné"), AT + 1)])
    compact(blobs, LIVE, key_of=KEY_OF)
    first, second, _ = read_rows(blobs).to_pylist()
    assert (first["body"], first["reason"], first["verdict"]) == (None, "erased", "dead")
    assert second["body"] == body.replace(b"ann", b"bob")
    numbers = FolderBlobStore(tmp_path / "numbers")
    write_sealed(numbers, [live(0, b'{"user_id": 4711}', AT, **dead), live(1, erasure("4711"), AT + 1)])
    compact(numbers, LIVE, key_of=KEY_OF)
    assert read_rows(numbers)["body"].to_pylist() == [None, None]


def test_a_foreign_erasure_that_holds_an_id_becomes_a_keyed_one(tmp_path: Path) -> None:
    blobs = FolderBlobStore(tmp_path)
    said = act(HER, AT, event_type=EventType.USER_ERASED, item_id=None, quantity=None, price_cents=None)
    rows = [live(0, act(HER, AT - 9, 1), AT - 9), live(1, said, AT), live(2, act("ann", AT, 3), AT)]
    write_sealed(blobs, rows)
    compact(blobs, LIVE, key_of=KEY_OF)
    assert not files_with(tmp_path, NAMED)
    (found,) = read_range(blobs, "live-1", 0, 1, 1)
    event = decode_logged(found.body)
    assert event.erasure().user_key == KEY_OF(HER)
    assert event.occurred_at_ms == AT
    manifest = read_manifest(blobs)
    assert [one.user_key for one in read_erasures(blobs, manifest)] == [KEY_OF(HER)]
    other = FolderBlobStore(tmp_path / "other")
    write_sealed(other, rows)
    with pytest.raises(ConfigurationError, match="USER_KEY_SECRET"):
        compact(other, LIVE)


def test_history_ingested_anew_is_cleared_of_whom_the_lake_knows_as_erased(tmp_path: Path) -> None:
    blobs = fill(tmp_path)
    erase(blobs)
    compact(blobs, LIVE, key_of=KEY_OF)
    days = [act(users()[n % 4], START + n * DAY // 10 + 1, n) for n in range(20)]
    publish_history(blobs, "history-b", 2, ShopSettings(), [unnumbered_table(days)])
    assert files_with(tmp_path, NAMED)
    report = compact(blobs, LIVE, key_of=KEY_OF)
    assert (report.erasures, report.sealed_files) == (0, 0)
    assert not files_with(tmp_path, NAMED)
    assert sum(one is None for one in read_rows(blobs, sources=["history-b"])["user_id"].to_pylist()) == 5


def test_an_older_lake_is_searched_once(tmp_path: Path) -> None:
    """Its manifest knows no erasures, and its files hold some with ids."""
    blobs = FolderBlobStore(tmp_path)
    said = act(HER, AT, event_type=EventType.USER_ERASED, item_id=None, quantity=None, price_cents=None)
    write_sealed(blobs, [live(0, act("ann", AT, 1), AT)])
    compact(blobs, LIVE, key_of=KEY_OF)
    publish_history(blobs, "history-a", 1, ShopSettings(), [unnumbered_table([act(HER, AT - 1), said])])
    manifest = read_manifest(blobs)
    assert manifest is not None
    files = tuple(msgspec.structs.replace(one, cleared=-1) for one in manifest.files)
    old = msgspec.structs.replace(manifest, version=manifest.version + 1, files=files, erasures=None)
    blobs.write("lake/lake_manifest.json", msgspec.json.encode(old))
    assert compact(blobs, LIVE, key_of=KEY_OF).erasures == 1
    assert not files_with(tmp_path, NAMED)
    watched = Watched(tmp_path)
    compact(watched, LIVE, key_of=KEY_OF)
    assert not [name for name in watched.was_read if name.endswith(".parquet")]


def test_a_clock_that_is_behind_the_brokers_erases_what_came_before_the_copy(tmp_path: Path) -> None:
    blobs = FolderBlobStore(tmp_path)
    before = live(0, act(HER, AT + 4000), AT + 4000)
    write_sealed(blobs, [before, live(1, erasure(), AT + 5000), live(2, act(HER, AT + 6000, 1), AT + 6000)])
    compact(blobs, LIVE, key_of=KEY_OF)
    assert read_rows(blobs)["user_id"].to_pylist() == [None, None, HER]


def test_many_erasures_go_in_one_compaction(tmp_path: Path) -> None:
    blobs = FolderBlobStore(tmp_path)
    count = 10_000
    rows = [live(n, act(f"user {n}", START + n, n), START + n) for n in range(count)]
    write_sealed(blobs, rows)
    compact(blobs, LIVE, key_of=KEY_OF)
    gone = [
        live(count + n, erasure(f"user {n}", START + DAY, f"{n:032x}"), START + DAY + n) for n in range(0, count, 2)
    ]
    write_sealed(blobs, gone)
    assert compact(blobs, LIVE, key_of=KEY_OF).erasures == count // 2
    users_left = read_rows(blobs)["user_id"].to_pylist()[:count]
    assert users_left == [None if n % 2 == 0 else f"user {n}" for n in range(count)]


def test_lines_of_a_sealed_file_that_escape_their_letters_are_read_too(tmp_path: Path) -> None:
    blobs = FolderBlobStore(tmp_path)
    write_sealed(blobs, [live(0, act(HER, AT - 9), AT - 9)])
    body = encode_event(erasure()).replace(b"user_erased", b"user_er\\u0061sed")
    write_sealed(blobs, [live(1, body, AT), live(2, b" " + encode_event(erasure("ann", AT, "cd" * 16)), AT)])
    assert b"\\u0061" in gzip.decompress(blobs.read(sorted(blobs.names("lake/sealed/"))[1]))
    assert compact(blobs, LIVE, key_of=KEY_OF).erasures == 2
    assert not files_with(tmp_path, NAMED)


def test_the_lakes_end_is_told_while_a_compaction_takes_the_last_sealed_file_away(tmp_path: Path) -> None:
    blobs = fill(tmp_path)
    erase(blobs)
    write_sealed(blobs, [live(17, act(HER, AT - 1, 17), AT + 6)])

    class Overtaken(FolderBlobStore):
        def read(self, name: str) -> bytes:
            if "/sealed/" in name and "17.ndjson" in name:
                compact(blobs, LIVE, key_of=KEY_OF)
            return super().read(name)

    assert highest_sealed(Overtaken(tmp_path), "live-1", 0) == Mark(17, AT + 6)
    assert not files_with(tmp_path, NAMED)


def test_who_comes_back_and_is_erased_again_goes_twice(tmp_path: Path) -> None:
    blobs = fill(tmp_path)
    erase(blobs)
    write_sealed(blobs, [live(17, act(HER, AT + 50, 17), AT + 50)])
    compact(blobs, LIVE, key_of=KEY_OF)
    assert files_with(tmp_path, NAMED), "the new user stays"
    write_sealed(blobs, [live(18, erasure(HER, AT + DAY, "cd" * 16), AT + DAY)])
    assert compact(blobs, LIVE, key_of=KEY_OF).erasures == 1
    assert not files_with(tmp_path, NAMED)
    assert [one.erased_at for one in read_erasures(blobs, read_manifest(blobs))] == [AT, AT + DAY]


def test_a_duplicate_goes_with_the_row_it_repeats_lest_a_backfill_take_it_for_new(tmp_path: Path) -> None:
    blobs = FolderBlobStore(tmp_path)
    seen = act(HER, AT + 3000)
    again: dict[str, Any] = {"verdict": Verdict.DUPLICATE}
    rows = [
        live(0, seen, AT + 3000), live(1, erasure(), AT + 5000), live(2, seen, AT + DAY, **again),
        live(3, act(HER, AT + 2 * DAY, 3), AT + 2 * DAY), live(4, act(HER, AT + 2 * DAY, 3), AT + 2 * DAY + 1, **again),
    ]  # fmt: skip
    write_sealed(blobs, rows)
    compact(blobs, LIVE, key_of=KEY_OF)
    assert read_rows(blobs)["user_id"].to_pylist() == [None, None, None, HER, HER]
