"""Landing rows and marks as Redis holds them."""

from __future__ import annotations

from collections.abc import Mapping

from shared.adapters.redis_connection import Argument
from shared.ports import LandingRow, Mark, Verdict

_LETTERS = {Verdict.ACCEPTED: "a", Verdict.DUPLICATE: "d", Verdict.DEAD: "x", Verdict.SKIPPED: "s"}
_VERDICTS = {letter.encode(): verdict for verdict, letter in _LETTERS.items()}


def encode_mark(mark: Mark | None) -> str:
    """The mark as `sequence:enqueued_at`, the empty string when there is none."""
    return "" if mark is None else f"{mark.sequence}:{mark.enqueued_at}"


def decode_mark(value: bytes | None) -> Mark | None:
    """The inverse of `encode_mark`; None for a key that is absent."""
    if not value:
        return None
    sequence, _, enqueued_at = value.partition(b":")
    return Mark(int(sequence), int(enqueued_at))


def stream_id(sequence: int) -> str:
    """The stream id of a sequence: ids start at 1, sequences at 0."""
    return f"{sequence + 1}-0"


def sequence_of(entry_id: bytes) -> int:
    """The inverse of `stream_id`."""
    return int(entry_id.partition(b"-")[0]) - 1


def last_of(row: LandingRow) -> int:
    """The last sequence a row speaks for."""
    return row.sequence if row.last_sequence is None else row.last_sequence


def row_arguments(row: LandingRow) -> list[Argument]:
    """The row as the commit script takes it: id (of its last sequence), count, fields and values."""
    fields: list[Argument] = ["v", _LETTERS[row.verdict], "e", row.enqueued_at, "b", row.body]
    if row.reason is not None:
        fields += ["r", row.reason]
    if row.last_sequence is not None:
        fields += ["f", row.sequence]
    return [stream_id(last_of(row)), len(fields), *fields]


def decode_row(source: str, partition: int, entry_id: bytes, fields: Mapping[bytes, bytes]) -> LandingRow:
    """The inverse of `row_arguments`, from one stream entry's fields."""
    last = sequence_of(entry_id)
    first = fields.get(b"f")
    reason = fields.get(b"r")
    return LandingRow(
        source=source,
        partition=partition,
        sequence=last if first is None else int(first),
        enqueued_at=int(fields[b"e"]),
        verdict=_VERDICTS[fields[b"v"]],
        body=fields[b"b"],
        reason=None if reason is None else reason.decode(),
        last_sequence=None if first is None else last,
    )
