"""The lake's table: its Arrow schema, and the ways between events, landing rows and columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from shared.errors import InvalidEvent
from shared.events import Event, EventType, encode_event, from_ms
from shared.ingest.logged_body import decode_logged
from shared.ports import LandingRow, Verdict

COORDINATES = ("source", "partition", "sequence")
REQUIRED = frozenset({"source", "partition", "sequence", "enqueued_at", "verdict"})
LAKE_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=name not in REQUIRED)
        for name, kind in {
            "source": pa.string(),
            "partition": pa.int32(),
            "sequence": pa.int64(),
            "enqueued_at": pa.int64(),
            "verdict": pa.string(),
            "reason": pa.string(),
            "last_sequence": pa.int64(),
            "event_id": pa.string(),
            "event_type": pa.string(),
            "occurred_at": pa.int64(),
            "user_id": pa.string(),
            "item_id": pa.string(),
            "session_id": pa.string(),
            "quantity": pa.int32(),
            "price_cents": pa.int64(),
            "recommendation_id": pa.string(),
            "context": pa.string(),
            "changes": pa.string(),
            "body": pa.binary(),
        }.items()
    ]
)
"""One row a sequence (or a skipped range); instants are epoch milliseconds, `context` and `changes` are JSON text."""

EVENT_SCHEMA = pa.schema(
    [field for field in LAKE_SCHEMA if field.name not in {*REQUIRED, "reason", "last_sequence", "body"}]
)
"""An unnumbered row: the event alone, from event_id to changes."""

EVENT_COLUMNS = tuple(EVENT_SCHEMA.names)

_TYPES = {kind.value: kind for kind in EventType}


def table_of_landing(rows: Iterable[LandingRow]) -> pa.Table:
    """Landing rows as a table of the lake's schema, in the order given.

    A row whose body decodes has the event's columns, also when it is dead; `body` is kept only where it does not.
    """
    return pa.Table.from_pylist([_columns_of(row) for row in rows], schema=LAKE_SCHEMA)


def landing_of_table(table: pa.Table) -> Iterator[LandingRow]:
    """The rows of a whole lake table as landing rows; bodies are encoded anew, equal as events."""
    for row, event in zip(table.to_pylist(), events_of_table(table), strict=True):
        yield LandingRow(
            source=row["source"], partition=row["partition"], sequence=row["sequence"],
            enqueued_at=row["enqueued_at"], verdict=Verdict(row["verdict"]),
            body=encode_event(event) if event is not None else row["body"] or b"",
            reason=row["reason"], last_sequence=row["last_sequence"],
        )  # fmt: skip


def events_of_table(table: pa.Table) -> Iterator[Event | None]:
    """The event of each row of a lake table (None where the row has none), without checking it again.

    A redacted row's event has neither user nor event id (""): what is left of it counts for its item alone.
    """
    columns = [table.column(name).to_pylist() for name in EVENT_COLUMNS]
    for event_id, kind, at, user, item, session, quantity, price, recommendation, context, changes in zip(
        *columns, strict=True
    ):
        if kind is None:
            yield None
            continue
        yield Event(
            event_id=event_id or "", event_type=_TYPES[kind], occurred_at=from_ms(at), user_id=user, item_id=item,
            session_id=session, quantity=quantity, price_cents=price, recommendation_id=recommendation,
            context=None if context is None else msgspec.json.decode(context),
            changes=None if changes is None else msgspec.json.decode(changes),
        )  # fmt: skip


def unnumbered_table(events: Sequence[Event]) -> pa.Table:
    """Events as a table of `EVENT_COLUMNS`, for `publish_history`; a bulk writer fills the columns itself."""
    return pa.Table.from_pylist([_event_columns(event) for event in events], schema=EVENT_SCHEMA)


def _columns_of(row: LandingRow) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "source": row.source, "partition": row.partition, "sequence": row.sequence, "enqueued_at": row.enqueued_at,
        "verdict": row.verdict.value, "reason": row.reason, "last_sequence": row.last_sequence,
    }  # fmt: skip
    if row.body:
        try:
            columns |= _event_columns(decode_logged(row.body))
        except InvalidEvent:
            columns["body"] = row.body
    return columns


def _event_columns(event: Event) -> dict[str, Any]:
    columns: dict[str, Any] = {name: getattr(event, name) for name in EVENT_COLUMNS}
    columns["event_type"] = event.event_type.value
    columns["occurred_at"] = event.occurred_at_ms
    columns["event_id"] = event.event_id or None
    for name in ("context", "changes"):
        if columns[name] is not None:
            columns[name] = msgspec.json.encode(columns[name]).decode()
    return columns
