"""Folding one chunk in memory: verdicts, shards and catalogue entries, ready for one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.catalog import CatalogEntry, decode_entry
from shared.errors import BadDeployment, InvalidEvent, RecommndrError
from shared.events import BEHAVIOUR, FUTURE_LIMIT_MS, Event, EventType, decode_event, id_hash
from shared.ingest.chunks import end_of
from shared.ingest.logged_body import decode_logged, is_redacted
from shared.ports import (
    LandingRow,
    LogRecord,
    LogWrite,
    Mark,
    PartitionCommit,
    PartitionState,
    Touched,
    UserWrite,
    Verdict,
    VersionShards,
    VersionWrite,
)

FOLD_FAILED = "fold failed: "
"""How the reason of a row begins that is dead because its fold raised."""

_LONGEST_REASON = 500


class FoldFailed(RecommndrError):
    """The fold of a chunk raised: an event in it, or the code, is at fault."""


@dataclass(frozen=True, slots=True)
class StateVersion[User, Item]:
    """One state version's fold, as plain functions, so that several can be folded side by side.

    `decode_*` take the stored bytes, None for an absent shard; `fold_user` says False for a duplicate event id;
    `user_expires` says whether a shard may vanish when its user is idle.
    """

    name: str
    decode_user: Callable[[bytes | None], User]
    encode_user: Callable[[User], bytes]
    user_expires: Callable[[User], bool]
    fold_user: Callable[[User, Event, int, int], bool]
    decode_item: Callable[[bytes | None], Item]
    encode_item: Callable[[Item], bytes]
    fold_item: Callable[[Item, Event, int], None]


AnyVersion = StateVersion[Any, Any]


@dataclass(slots=True)
class Entry:
    """One row of a chunk with its event (None when dead or skipped); a standing verdict is not decided again.

    Not frozen, as rows and writes are not: one is made for every event, and freezing it would take four times as long.
    """

    row: LandingRow
    event: Event | None
    standing: bool


def fresh_entry(record: LogRecord) -> Entry:
    """A record nobody has judged yet; undecodable bytes and times too far ahead make a dead row."""
    row = LandingRow(
        record.source, record.partition, record.sequence, record.enqueued_at, Verdict.ACCEPTED, record.body
    )
    try:
        event = decode_event(record.body)
    except InvalidEvent as error:
        return dead_entry(row, f"undecodable: {error}")
    ahead_ms = event.occurred_at_ms - record.enqueued_at
    if ahead_ms > FUTURE_LIMIT_MS:
        return dead_entry(row, f"occurred_at lies {ahead_ms} ms after enqueued_at, more than {FUTURE_LIMIT_MS}")
    return Entry(row, event, standing=False)


def dead_entry(row: LandingRow, reason: str) -> Entry:
    """The row as a dead letter."""
    clean = reason.encode("utf-8", "replace").decode()[:_LONGEST_REASON]
    return Entry(replace(row, verdict=Verdict.DEAD, reason=clean), None, standing=False)


def standing_entry(row: LandingRow) -> Entry:
    """A row of the log, whose verdict stands.

    Raises:
        BadDeployment: the log holds it as an event, and this code cannot decode it.
    """
    if row.verdict not in {Verdict.ACCEPTED, Verdict.DUPLICATE}:
        return Entry(row, None, standing=True)
    try:
        return Entry(row, decode_logged(row.body), standing=True)
    except InvalidEvent as error:
        raise BadDeployment(
            f"{row.source}/{row.partition}: sequence {row.sequence} was folded once and does not decode now: {error}"
        ) from error


def split_at_erasure(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The first of the entries that may go together: an erasure is a chunk of its own.

    It may name its user by her keyed hash, and beside her id in one chunk she would be two users with one shard.
    """
    for place, entry in enumerate(entries):
        if entry.event is not None and entry.event.event_type is EventType.USER_ERASED:
            return entries[: max(place, 1)]
    return entries


def touched_by(entries: Sequence[Entry]) -> Touched:
    """The shards and catalogue entries that folding these reads."""
    users: dict[str, None] = {}
    items: dict[int, None] = {}
    products: dict[int, None] = {}
    for entry in entries:
        event = entry.event
        if event is None:
            continue
        subject = event.subject
        if subject is not None:
            users[subject] = None
        if event.item_id is not None:
            (products if event.event_type is EventType.ITEM_UPDATED else items)[id_hash(event.item_id)] = None
    return Touched(tuple(users), tuple(items), tuple(products))


def fold_chunk(
    entries: Sequence[Entry], state: PartitionState, versions: Sequence[AnyVersion], *, with_log: bool
) -> PartitionCommit:
    """Fold a chunk over the shards it touches.

    Args:
        entries: one contiguous run.
        state: read for `touched_by(entries)` and these versions.
        versions: all at the same mark; the first decides what is a duplicate.
        with_log: the log's mark is the versions' mark, so landing rows and catalogue entries are written too.

    Raises:
        FoldFailed: a fold raised. A shard that cannot be decoded is no event's fault and raises what its decoder
            raises.
    """
    shards = [_Shards(version, state.versions[version.name]) for version in versions]
    catalogue = {item: None if data is None else decode_entry(data) for item, data in state.products.items()}
    try:
        rows, counted, changed = _fold_entries(entries, shards, catalogue)
        writes = {
            one.version.name: one.write(state.versions[one.version.name].mark, counted, changed) for one in shards
        }
        products = {item: entry.encode() for item, entry in catalogue.items() if entry is not None}
    except MemoryError:
        raise
    except Exception as error:
        raise FoldFailed(f"{type(error).__name__}: {error}") from error
    last = entries[-1].row
    return PartitionCommit(
        source=last.source,
        partition=last.partition,
        mark_after=Mark(end_of(last), last.enqueued_at),
        versions=writes,
        log=LogWrite(state.log_mark, rows, products) if with_log else None,
    )


class _Shards:
    """One version's decoded shards while a chunk is folded."""

    def __init__(self, version: AnyVersion, held: VersionShards) -> None:
        self.version = version
        self.users = {user: version.decode_user(data) for user, data in held.users.items()}
        self.items = {item: version.decode_item(data) for item, data in held.items.items()}

    def write(self, mark: Mark | None, counted: Iterable[int], products: set[int]) -> VersionWrite:
        encode_user, encode_item, expires = (
            self.version.encode_user,
            self.version.encode_item,
            self.version.user_expires,
        )
        users = {user: UserWrite(encode_user(shard), expires(shard)) for user, shard in self.users.items()}
        items = {item: encode_item(self.items[item]) for item in counted}
        return VersionWrite(mark, users, items, sorted(products | items.keys()))


def _fold_entries(
    entries: Sequence[Entry], shards: Sequence[_Shards], catalogue: dict[int, CatalogEntry | None]
) -> tuple[list[LandingRow], dict[int, None], set[int]]:
    """The rows with their verdicts, the items counted, the products changed."""
    rows: list[LandingRow] = []
    counted: dict[int, None] = {}
    products: set[int] = set()
    users = [(one.users, one.version.fold_user) for one in shards]
    items = [(one.items, one.version.fold_item) for one in shards]
    for entry in entries:
        row, event = entry.row, entry.event
        if event is None:
            rows.append(row)
            continue
        if event.event_type is EventType.ITEM_UPDATED:
            _update_product(event, row, catalogue, products)
            rows.append(row)
            continue
        # A duplicate moves its user's shard on too (sequence, ring), so it is offered whoever judged it.
        enqueued_at, sequence = row.enqueued_at, row.sequence
        verdicts = []
        if not is_redacted(event):
            user = str(event.subject)
            verdicts = [fold_user(held[user], event, enqueued_at, sequence) for held, fold_user in users]
        accepted = row.verdict is Verdict.ACCEPTED if entry.standing else verdicts[0]
        if not accepted and not entry.standing:
            row = replace(row, verdict=Verdict.DUPLICATE)
        rows.append(row)
        if accepted and event.event_type in BEHAVIOUR and event.item_id is not None:
            item = id_hash(event.item_id)
            counted[item] = None
            for counters, fold_item in items:
                fold_item(counters[item], event, enqueued_at)
    return rows, counted, products


def _update_product(
    event: Event, row: LandingRow, catalogue: dict[int, CatalogEntry | None], touched: set[int]
) -> None:
    assert event.item_id is not None, "decode_event lets no item_updated pass without its item"
    item = id_hash(event.item_id)
    entry = catalogue.get(item)
    if entry is None:
        entry = catalogue[item] = CatalogEntry(item_id=event.item_id, fields={})
    entry.apply(event, row.enqueued_at)
    touched.add(item)
