"""Chunks: ascending contiguous runs of one partition, small enough for one commit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.errors import InfrastructureFault, StreamRecreated
from shared.ports import LandingRow, LogRecord

MOST_RECORDS = 100
SPAN_MS = 24 * 3600 * 1000
"""A chunk's records were enqueued within less than this."""

LATEST_AT: Final = 1 << 47
"""The year 6429: no broker's clock says more, and state keeps instants in 48 bits."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences `first` to `last` are missing before what was offered."""

    first: int
    last: int


def end_of(record: LogRecord | LandingRow) -> int:
    """The last sequence a record or row stands for."""
    last = record.last_sequence if isinstance(record, LandingRow) else None
    return record.sequence if last is None else last


def ordered(records: Sequence[LogRecord], source: str, partition: int) -> list[LogRecord]:
    """The records of one partition, ascending, each sequence once.

    Raises:
        InfrastructureFault: a record without a usable sequence, partition or instant, or of another partition: nothing
            may be guessed.
        StreamRecreated: one sequence came with two instants.
    """
    kept: dict[int, LogRecord] = {}
    for record in records:
        if type(record.sequence) is not int or type(record.enqueued_at) is not int or type(record.partition) is not int:
            raise _unusable(record)
        if record.sequence < 0 or record.partition < 0 or not 0 <= record.enqueued_at <= LATEST_AT:
            raise _unusable(record)
        if record.partition != partition or record.source != source:
            raise InfrastructureFault(
                f"a record of {record.source}/{record.partition} was offered to {source}/{partition}: check the trigger"
            )
        held = kept.setdefault(record.sequence, record)
        if held.enqueued_at != record.enqueued_at:
            raise StreamRecreated(
                f"{source}/{partition} offers sequence {record.sequence} as enqueued at {held.enqueued_at} and at "
                f"{record.enqueued_at}; give the new stream another EVENT_SOURCE"
            )
    return [kept[sequence] for sequence in sorted(kept)]


def next_chunk[R: (LogRecord, LandingRow)](
    records: Sequence[R], after: int, *, most: int = MOST_RECORDS, until: int | None = None
) -> list[R] | Gap | None:
    """What to commit next when everything up to `after` is in.

    Args:
        records: ascending; what is at or below `after` is dropped.
        after: the mark's sequence, -1 when there is none.
        most: records of a chunk.
        until: the last sequence the chunk may hold.

    Returns:
        A contiguous run that starts at `after` + 1, the gap before the first record, or None when nothing is left.
    """
    start = bisect_right(records, after, key=end_of)
    rest = records[start:]
    if not rest or (until is not None and rest[0].sequence > until):
        return None
    if rest[0].sequence > after + 1:
        return Gap(after + 1, rest[0].sequence - 1)
    window = list(rest[:most])
    if (
        until is None
        and end_of(window[-1]) - window[0].sequence == len(window) - 1
        and max(one.enqueued_at for one in window) - min(one.enqueued_at for one in window) < SPAN_MS
    ):
        return window  # ascending, and as many sequences as records: there is no hole
    run: list[R] = []
    lowest_at = highest_at = rest[0].enqueued_at
    for record in window:
        lowest_at, highest_at = min(lowest_at, record.enqueued_at), max(highest_at, record.enqueued_at)
        contiguous = not run or record.sequence == end_of(run[-1]) + 1
        if not contiguous or highest_at - lowest_at >= SPAN_MS or (until is not None and end_of(record) > until):
            break
        run.append(record)
    return run or None


def _unusable(record: LogRecord) -> InfrastructureFault:
    said = ", ".join(f"{name} {getattr(record, name)!r}" for name in ("partition", "sequence", "enqueued_at"))
    return InfrastructureFault(
        f"a record of {record.source} has no usable coordinates ({said}): check the trigger's metadata and the "
        "broker's clock"
    )
