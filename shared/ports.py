"""What the core asks of the outside world; shared/adapters answers, functions/bootstrap.py wires."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Verdict(StrEnum):
    """What the fold decided about one sequence of the broker log."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    DEAD = "dead"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the broker log; `enqueued_at` is the broker's clock in epoch ms."""

    source: str
    partition: int
    sequence: int
    enqueued_at: int
    body: bytes


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Everything up to and including this sequence is in."""

    sequence: int
    enqueued_at: int


@dataclass(slots=True, unsafe_hash=True)
class LandingRow:
    """What became of one sequence (of a range up to `last_sequence` when skipped): one row of the log.

    Nobody changes one; it is not frozen because one is made for every event, and that would take four times as long.
    """

    source: str
    partition: int
    sequence: int
    enqueued_at: int
    verdict: Verdict
    body: bytes = b""
    reason: str | None = None
    last_sequence: int | None = None


class BlobStore(Protocol):
    """Named bytes. Names are relative, `/`-separated paths."""

    def read(self, name: str) -> bytes:
        """The bytes; raises FileNotFoundError when there are none, InfrastructureFault when it cannot be known."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put the bytes there whole or not at all, replacing what was there."""
        ...

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        """As `write`, but only while what is there is `expected` (None: nothing); False when it is not."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """All names under the prefix, ascending."""
        ...

    def delete(self, name: str) -> None:
        """Remove it; nothing happens when it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class Appended:
    """Where and when (epoch ms) the broker log took an event; None where the broker does not tell."""

    partition: int
    sequence: int | None
    enqueued_at: int | None = None


class EventLog(Protocol):
    """The producer's side of the broker log."""

    def append(self, events: Sequence[tuple[str, bytes]]) -> list[Appended | None]:
        """Append (partition key, body) pairs; the i-th answer is None when the i-th event was not acknowledged.

        Raises BrokerUnavailable when none was.
        """
        ...

    def append_to(self, events: Sequence[tuple[int, bytes]]) -> list[Appended | None]:
        """As `append`, to the partition named beside each body: for what must reach a partition whatever its key."""
        ...


class EventLogReader(Protocol):
    """The consumer's side: random access to what the broker still holds."""

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:
        """Up to `limit` records with a sequence above `after_sequence`, ascending."""
        ...

    def last_sequence(self, partition: int) -> int | None:
        """The newest sequence ever given out, or None when the partition was never written to."""
        ...


@dataclass(frozen=True, slots=True)
class Allocation:
    """Who sees which release: weights need not sum to one; a stable hash of (salt, user) decides."""

    version: int
    salt: str
    releases: tuple[tuple[str, float], ...]


class ReleaseStore(Protocol):
    """What is published: the allocation, and each release's nightly lists."""

    def allocation(self) -> Allocation | None:
        """The current allocation, or None before the first publish."""
        ...

    def set_allocation(self, allocation: Allocation) -> None:
        """Replace it; raises MarkMoved unless `version` is the stored version + 1."""
        ...

    def nightly_records(self, release_id: str, users: Sequence[bytes]) -> list[bytes | None]:
        """The encoded nightly record of each keyed user hash."""
        ...

    def similar_lists(self, release_id: str, kind: str, indexes: Sequence[int]) -> list[bytes | None]:
        """The encoded neighbour list of each item index; `kind` is a `ListKind`."""
        ...


class RetainedLog(EventLogReader, Protocol):
    """A broker log that tells how far back it still reaches, so that a hole can be told from a loss."""

    def first_sequence(self, partition: int) -> int:
        """Nothing below it can be read any more; at or above it, what `read` does not give was never a record."""
        ...

    def trim_below(self, partition: int, sequence: int) -> None:
        """Forget every record with a lower sequence."""
        ...


@dataclass(frozen=True, slots=True)
class Touched:
    """What a chunk reads and may change in one partition: user ids, item hashes, catalogue entries by item hash."""

    users: Sequence[str] = ()
    items: Sequence[int] = ()
    products: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class VersionShards:
    """One state version's mark in one partition and the shards that were asked for; an absent shard is None."""

    mark: Mark | None
    users: Mapping[str, bytes | None]
    items: Mapping[int, bytes | None]


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One atomic look at a partition."""

    log_mark: Mark | None
    versions: Mapping[str, VersionShards]
    products: Mapping[int, bytes | None]


@dataclass(slots=True, unsafe_hash=True)
class UserWrite:
    """A user's new shard; `expires` is false for what must outlive idleness (preferences, tombstones)."""

    shard: bytes
    expires: bool = True


@dataclass(frozen=True, slots=True)
class VersionWrite:
    """What a chunk changes for one state version; `touched` names the items readers in memory must fetch anew."""

    mark_before: Mark | None
    users: Mapping[str, UserWrite]
    items: Mapping[int, bytes]
    touched: Sequence[int]


@dataclass(frozen=True, slots=True)
class LogWrite:
    """What a chunk adds to the log: landing rows in order of sequence, and the catalogue entries they make."""

    mark_before: Mark | None
    rows: Sequence[LandingRow]
    products: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class PartitionCommit:
    """One chunk's changes, all or nothing; `log` is None for versions that lag behind the log."""

    source: str
    partition: int
    mark_after: Mark
    versions: Mapping[str, VersionWrite]
    log: LogWrite | None


class StateStore(Protocol):
    """The feature state of (source, partition): read in one look, changed by one atomic commit."""

    def read(self, source: str, partition: int, versions: Sequence[str], touched: Touched) -> PartitionState:
        """Marks and shards at one instant, from the primary. Raises StateUnavailable."""
        ...

    def commit(self, commit: PartitionCommit) -> None:
        """Apply it whole, or raise: MarkMoved when a mark is not the one named, StateUnavailable otherwise.

        After StateUnavailable it is not known whether it was applied; the marks tell.
        """
        ...

    def landing_rows(self, source: str, partition: int, first: int, last: int) -> list[LandingRow]:
        """The rows still in landing that touch [first, last], ascending. Raises StateUnavailable."""
        ...

    def oldest_landing_rows(self, source: str, partition: int, limit: int) -> list[LandingRow]:
        """The oldest rows, whole commits of them: as few as make `limit` rows. Raises StateUnavailable."""
        ...

    def trim_landing(self, source: str, partition: int, through: LandingRow) -> None:
        """Remove every commit up to the one that ends with this row. Raises StateUnavailable."""
        ...
