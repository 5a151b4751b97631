"""Landing rows and marks as Redis holds them: the rows of one commit are one entry of the landing stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from shared.errors import CorruptRecord
from shared.ports import LandingRow, Mark, Verdict

_LETTERS = {Verdict.ACCEPTED: "a", Verdict.DUPLICATE: "d", Verdict.DEAD: "x", Verdict.SKIPPED: "s"}
_VERDICTS = {letter: verdict for verdict, letter in _LETTERS.items()}
ROWS = b"r"
"""The one field of an entry of the landing stream: the rows of one commit."""


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


def encode_rows(rows: Sequence[LandingRow]) -> bytes:
    """A chunk's rows as the one value of a stream entry, whose id is that of the last one: MessagePack."""
    return _ENCODER.encode(
        [
            (row.sequence, row.enqueued_at, _LETTERS[row.verdict], row.body, row.reason, row.last_sequence)
            for row in rows
        ]
    )


def decode_rows(source: str, partition: int, fields: Mapping[bytes, bytes]) -> list[LandingRow]:
    """The inverse of `encode_rows`, from one stream entry's fields. Raises CorruptRecord."""
    try:
        rows = _DECODER.decode(fields[ROWS])
        return [
            LandingRow(source, partition, sequence, enqueued_at, _VERDICTS[letter], body, reason, last_sequence)
            for sequence, enqueued_at, letter, body, reason, last_sequence in rows
        ]
    except (KeyError, msgspec.DecodeError) as error:
        raise CorruptRecord(
            f"{source}/{partition}: a landing entry cannot be read ({error!r}): seal it with the version that wrote it"
        ) from error


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[tuple[int, int, str, bytes, str | None, int | None]])
