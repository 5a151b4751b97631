"""The NDJSON codec of landing rows: how sealed files hold what became of each sequence."""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Raw, Struct

from shared.errors import CorruptRecord
from shared.ports import LandingRow, Verdict

_NOTHING = Raw()
"""msgspec leaves a default out by identity; Raw may stand in no union."""


class _Line(Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    source: str
    partition: int
    sequence: int
    enqueued_at: int
    verdict: Verdict
    reason: str | None = None
    last_sequence: int | None = None
    event: Raw = _NOTHING
    raw: str | None = None


_LINES = msgspec.json.Decoder(_Line)
_JSON = msgspec.json.Encoder()


def landing_line(row: LandingRow) -> bytes:
    """One line of NDJSON without its newline; a body that is no one-line JSON travels as base64 in `raw`."""
    plain = bool(row.body) and _is_plain_json(row.body)
    return _JSON.encode(
        _Line(
            source=row.source, partition=row.partition, sequence=row.sequence, enqueued_at=row.enqueued_at,
            verdict=row.verdict, reason=row.reason, last_sequence=row.last_sequence,
            event=Raw(row.body) if plain else _NOTHING,
            raw=base64.b64encode(row.body).decode() if row.body and not plain else None,
        )
    )  # fmt: skip


def parse_landing_line(line: bytes) -> LandingRow:
    """The inverse of `landing_line`. Raises CorruptRecord for anything else."""
    try:
        found = _LINES.decode(line)
        body = bytes(found.event) if found.raw is None else base64.b64decode(found.raw, validate=True)
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError) as error:
        raise CorruptRecord(f"a landing row cannot be read ({error}); restore its file from the broker log") from error
    return LandingRow(
        source=found.source, partition=found.partition, sequence=found.sequence, enqueued_at=found.enqueued_at,
        verdict=found.verdict, body=body, reason=found.reason, last_sequence=found.last_sequence,
    )  # fmt: skip


def _is_plain_json(body: bytes) -> bool:
    """Whether the body can stand inside a line as it is and come out byte for byte."""
    if b"\n" in body or b"\r" in body or body != body.strip():
        return False
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
