"""Dead letters: the rows of the log that could not be folded, and sending one of them into the stream again.

The store of dead letters is a view of landing and lake. What is kept beside it is a record of each replay, a blob
`lake/replays/<source>/<partition>/<sequence>.json`: begun before the event is published, finished afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from shared.errors import ConfigurationError, CorruptRecord, InvalidEvent
from shared.events import Event, EventSource, EventType, decode_event
from shared.ingest.lake import landing_of_table, read_rows
from shared.ports import BlobStore, EventLog, LandingRow, StateStore, Verdict

REPLAYS_FOLDER = "lake/replays/"
DAY_MS = 24 * 3600 * 1000
_ID = re.compile(r"([a-z0-9][a-z0-9-]{0,62})/(\d{1,9})/(\d{1,19})")
_LAST = 2**63 - 2


@dataclass(frozen=True, slots=True, order=True)
class LetterId:
    """The coordinates of a dead row, written `<source>/<partition>/<sequence>`."""

    source: str
    partition: int
    sequence: int

    def __str__(self) -> str:
        """As `parse` takes it."""
        return f"{self.source}/{self.partition}/{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> LetterId:
        """Raises ConfigurationError for anything else."""
        match = _ID.fullmatch(text)
        if match is None:
            raise ConfigurationError(f"{text!r} names no dead letter: write <source>/<partition>/<sequence>")
        return cls(match[1], int(match[2]), int(match[3]))


class ReplayRecord(Struct, frozen=True, kw_only=True):
    """One dead letter's replay; instants are epoch ms by the clock of whoever replayed.

    `begun_at` is when the intent was recorded, `finished_at` when the event was known to be in the stream again.
    """

    event_id: str
    begun_at: int
    finished_at: int | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead row with its event, where its bytes are one, and its replay, where there was one."""

    row: LandingRow
    event: Event | None
    replay: ReplayRecord | None

    @property
    def id(self) -> LetterId:
        """Its coordinates."""
        return LetterId(self.row.source, self.row.partition, self.row.sequence)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters; every condition that is given must hold. `since` is an enqueued_at in epoch ms."""

    ids: Collection[LetterId] = ()
    source: str | None = None
    partition: int | None = None
    reason: str | None = None
    since: int | None = None

    def holds(self, row: LandingRow) -> bool:
        """Whether this row is wanted; `reason` is any part of the row's, whatever its case."""
        return (
            row.verdict is Verdict.DEAD
            and (not self.ids or LetterId(row.source, row.partition, row.sequence) in self.ids)
            and self.source in {None, row.source}
            and self.partition in {None, row.partition}
            and (self.reason is None or self.reason.lower() in (row.reason or "").lower())
            and (self.since is None or row.enqueued_at >= self.since)
        )


def dead_letters(
    blobs: BlobStore, store: StateStore, streams: Sequence[EventSource], wanted: Wanted
) -> list[DeadLetter]:
    """The dead letters wanted, by coordinates; `streams` are the sources that may have rows in landing.

    Raises InfrastructureFault, and LakeConflict when the lake is not whole.
    """
    found = {
        LetterId(row.source, row.partition, row.sequence): row for row in _landed(store, streams) if wanted.holds(row)
    }
    sources = {one.source for one in wanted.ids} or ({wanted.source} if wanted.source is not None else None)
    table = read_rows(blobs, sources=sources, since_enqueued_at=wanted.since, keep=_dead)
    for row in landing_of_table(table):
        if wanted.holds(row):
            found[LetterId(row.source, row.partition, row.sequence)] = row
    return [DeadLetter(found[one], _event_of(found[one]), read_record(blobs, one)) for one in sorted(found)]


def _landed(store: StateStore, streams: Sequence[EventSource]) -> Iterator[LandingRow]:
    for source in streams:
        for partition in source.partitions():
            yield from store.landing_rows(source.name, partition, 0, _LAST)


def _dead(table: pa.Table) -> pa.Table:
    return table.filter(pc.field("verdict") == Verdict.DEAD.value)


def _event_of(row: LandingRow) -> Event | None:
    try:
        return decode_event(row.body)
    except InvalidEvent:
        return None


def _record_name(letter: LetterId) -> str:
    return f"{REPLAYS_FOLDER}{letter}.json"


def read_record(blobs: BlobStore, letter: LetterId) -> ReplayRecord | None:
    """What is recorded of a letter's replay, None before the first. Raises CorruptRecord."""
    try:
        return msgspec.json.decode(blobs.read(_record_name(letter)), type=ReplayRecord)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise CorruptRecord(f"{_record_name(letter)} cannot be read ({error}); delete it and replay again") from error


def write_record(blobs: BlobStore, letter: LetterId, record: ReplayRecord) -> None:
    """Record a replay's beginning or end."""
    blobs.write(_record_name(letter), msgspec.json.encode(record))


class Fate(StrEnum):
    """What a replay did with a letter."""

    PUBLISHED = "published"
    IN_THE_LOG = "already in the log"
    DONE_BEFORE = "replayed before"
    NO_EVENT = "no event: cannot be replayed"
    ERASURE = "an erasure: sent to its partition again by itself until it is folded there"
    UNACKNOWLEDGED = "not acknowledged by the broker log"


def replay(
    letters: Sequence[DeadLetter],
    *,
    blobs: BlobStore,
    store: StateStore,
    streams: Sequence[EventSource],
    producer: EventLog,
    clock: Callable[[], int],
) -> Iterator[tuple[DeadLetter, Fate]]:
    """Publish each letter's bytes anew, under their own event id, and tell what became of each.

    The intent is recorded, then the event published, then that recorded as done. Whoever finds an intent without its
    end, or no intent, looks for the event id among what the log has accepted since, and publishes only what is not
    there; an event still on its way is then published twice, and the ring of accepted ids (24 h, 256 events of a user)
    counts it once. `clock` tells epoch ms.

    Raises BrokerUnavailable when the broker log takes nothing, InfrastructureFault, LakeConflict.
    """
    open_letters = [one for one in letters if one.event is not None and not _finished(one)]
    accepted = accepted_since(blobs, store, streams, open_letters)
    for letter in letters:
        yield letter, _replay_one(letter, accepted, blobs, producer, clock)


def _finished(letter: DeadLetter) -> bool:
    return letter.replay is not None and letter.replay.finished_at is not None


def _replay_one(
    letter: DeadLetter, accepted: Collection[str], blobs: BlobStore, producer: EventLog, clock: Callable[[], int]
) -> Fate:
    event = letter.event
    if event is None:
        return Fate.NO_EVENT
    if event.event_type is EventType.USER_ERASED and event.user_id is None:
        return Fate.ERASURE  # its id stands in every partition's log, so that nobody could tell where it is missing
    if _finished(letter):
        return Fate.DONE_BEFORE
    record = letter.replay or ReplayRecord(event_id=event.event_id, begun_at=clock())
    write_record(blobs, letter.id, record)
    fate = Fate.IN_THE_LOG
    if event.event_id not in accepted:
        (appended,) = producer.append([(event.partition_key, letter.row.body)])
        if appended is None:
            return Fate.UNACKNOWLEDGED
        fate = Fate.PUBLISHED
    write_record(blobs, letter.id, msgspec.structs.replace(record, finished_at=clock()))
    return fate


def accepted_since(
    blobs: BlobStore, store: StateStore, streams: Sequence[EventSource], letters: Sequence[DeadLetter]
) -> set[str]:
    """Those of the letters' event ids that the log has accepted since the first of the letters, a day less.

    Raises as `dead_letters`.
    """
    if not letters:
        return set()
    ids = {letter.event.event_id for letter in letters if letter.event is not None}
    since = min(letter.row.enqueued_at for letter in letters) - DAY_MS
    wanted = pa.array(sorted(ids), pa.string())

    def keep(table: pa.Table) -> pa.Table:
        return table.filter((pc.field("verdict") == Verdict.ACCEPTED.value) & pc.field("event_id").isin(wanted))

    # Landing first: a row that is sealed meanwhile is then seen twice rather than never.
    events = [_event_of(row) for row in _landed(store, streams) if row.verdict is Verdict.ACCEPTED]
    found = ids & {event.event_id for event in events if event is not None}
    table = read_rows(blobs, columns=["event_id"], since_enqueued_at=since, keep=keep)
    return found | set(table.column("event_id").to_pylist())
