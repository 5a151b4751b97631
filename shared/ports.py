"""What the core asks of the outside world; shared/adapters answers, functions/bootstrap.py wires."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class LandingRow:
    """What became of one sequence (of a range up to `last_sequence` when skipped): one row of the log."""

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
    """Where the broker log put an event; `sequence` is None when the broker does not tell."""

    partition: int
    sequence: int | None


class EventLog(Protocol):
    """The producer's side of the broker log."""

    def append(self, events: Sequence[tuple[str, bytes]]) -> list[Appended | None]:
        """Append (partition key, body) pairs; the i-th answer is None when the i-th event was not acknowledged.

        Raises BrokerUnavailable when none was.
        """
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
        """The encoded neighbour list of each item index; `kind` is "similar" or "bought_together"."""
        ...
