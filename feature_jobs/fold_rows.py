"""Lake rows to encoded shards, an entity at a time: the shared fold behind both engines of the backfill.

A row of the lake becomes a row for its user (accepted and duplicate events move her shard) and one for its item (its
counters, or its catalogue entry): exactly what the stream's fold of a chunk changes, with the verdicts as they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.catalog import CatalogEntry
from shared.errors import BadDeployment
from shared.events import BEHAVIOUR, EventType, ItemId, id_hash
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake_table import EVENT_COLUMNS, EVENT_SCHEMA, events_of_table
from shared.ports import Mark, UserWrite, Verdict


class Kind(IntEnum):
    """Whose row it is."""

    USER = 0
    ITEM = 1
    PRODUCT = 2


_BEHAVIOUR: Final = pa.array([one.value for one in sorted(BEHAVIOUR)])

ROW_SCHEMA: Final = pa.schema(
    [
        pa.field("kind", pa.int8()),
        pa.field("partition", pa.int32()),
        pa.field("sequence", pa.int64()),
        pa.field("enqueued_at", pa.int64()),
        *EVENT_SCHEMA,
    ]
)
"""One row of one entity, with its whole event."""

KEYED_SCHEMA: Final = ROW_SCHEMA.append(pa.field("key", pa.int64()))
"""With the key by which rows of an entity lie together; two entities may share one."""

ROW_COLUMNS: Final = ("partition", "sequence", "enqueued_at", "verdict", *EVENT_COLUMNS)
"""What is read of a lake file."""


@dataclass(frozen=True, slots=True)
class FoldedShard:
    """One entity's new shard in one partition, and how many events went into it; `entity` is a user id or item hash."""

    kind: Kind
    partition: int
    entity: str | int
    shard: UserWrite | bytes
    events: int


def rows_of(table: pa.Table, marks: Mapping[int, Mark]) -> Iterator[pa.Table]:
    """The rows (`ROW_SCHEMA`) that a lake table holds for users, items and products, at or below the marks.

    Raises BadDeployment for a row that was folded once and does not decode now.
    """
    partitions = np.asarray(table["partition"])
    until = np.full(int(partitions.max(initial=-1)) + 1, -1, dtype=np.int64)
    for partition, mark in marks.items():
        if partition < len(until):
            until[partition] = mark.sequence
    within = pa.array(np.asarray(table["sequence"]) <= until[partitions])
    accepted = pc.equal(table["verdict"], Verdict.ACCEPTED.value)
    folded = pc.or_(accepted, pc.equal(table["verdict"], Verdict.DUPLICATE.value))
    chosen = table.filter(pc.and_(within, folded))
    if chosen["event_id"].null_count:
        row = chosen.filter(pc.is_null(chosen["event_id"])).slice(0, 1).to_pylist()[0]
        raise BadDeployment(
            f"partition {row['partition']}: sequence {row['sequence']} was folded once and does not decode now"
        )
    accepted = pc.equal(chosen["verdict"], Verdict.ACCEPTED.value)
    updates = pc.equal(chosen["event_type"], EventType.ITEM_UPDATED.value)
    for kind, mask in (
        (Kind.USER, pc.invert(updates)),
        (Kind.ITEM, pc.and_(accepted, pc.is_in(chosen["event_type"], value_set=_BEHAVIOUR))),
        (Kind.PRODUCT, pc.and_(accepted, updates)),
    ):
        rows = chosen.filter(mask)
        if rows.num_rows:
            code = pa.repeat(pa.scalar(kind.value, pa.int8()), rows.num_rows)
            columns = [code if name == "kind" else rows[name] for name in ROW_SCHEMA.names]
            yield pa.table(columns, schema=ROW_SCHEMA)


def ordered_rows(rows: pa.Table) -> pa.Table:
    """`ROW_SCHEMA` as `KEYED_SCHEMA`, the rows of an entity together and in sequence order."""
    of_user = pc.equal(rows["kind"], Kind.USER.value)
    entity = pc.if_else(of_user, rows["user_id"], rows["item_id"])
    codes = np.asarray(entity.combine_chunks().dictionary_encode().indices, dtype=np.int64)
    partitions, kinds = np.asarray(rows["partition"]), np.asarray(rows["kind"])
    keys = (codes * (int(partitions.max(initial=0)) + 1) + partitions) * len(Kind) + kinds
    keyed = rows.append_column("key", pa.array(keys))
    return keyed.take(pa.array(np.lexsort((np.asarray(rows["sequence"]), keys))))


@dataclass(slots=True)
class _Open:
    """An entity whose rows are being folded."""

    state: Any
    last_sequence: int = -1
    events: int = 0


def fold_rows(batches: Iterable[pa.RecordBatch], version: AnyVersion) -> Iterator[FoldedShard]:
    """Fold rows (`KEYED_SCHEMA`) that come by key and sequence, and give out each entity once it is whole.

    A coordinate that comes twice, as overlapping files make it, counts once.
    """
    current: int | None = None
    opened: dict[tuple[int, int, str], _Open] = {}
    for batch in batches:
        columns = [batch[name].to_pylist() for name in ("key", "kind", "partition", "sequence", "enqueued_at")]
        events = events_of_table(pa.Table.from_batches([batch]))
        for key, kind, partition, sequence, enqueued_at, event in zip(*columns, events, strict=True):
            if key != current:
                yield from _close(opened, version)
                opened.clear()
                current = key
            assert event is not None, "rows_of lets no row without its event pass"
            entity = str(event.user_id if kind == Kind.USER else event.item_id)
            held = opened.get((kind, partition, entity))
            if held is None:
                held = opened[kind, partition, entity] = _Open(_empty(kind, entity, version))
            if sequence == held.last_sequence:
                continue
            held.last_sequence = sequence
            held.events += 1
            if kind == Kind.USER:
                version.fold_user(held.state, event, enqueued_at, sequence)
            elif kind == Kind.ITEM:
                version.fold_item(held.state, event, enqueued_at)
            else:
                held.state.apply(event, enqueued_at)
    yield from _close(opened, version)


def _empty(kind: int, entity: str, version: AnyVersion) -> Any:  # noqa: ANN401 - each version has its own shards
    if kind == Kind.USER:
        return version.decode_user(None)
    return version.decode_item(None) if kind == Kind.ITEM else CatalogEntry(item_id=ItemId(entity), fields={})


def _close(opened: Mapping[tuple[int, int, str], _Open], version: AnyVersion) -> Iterator[FoldedShard]:
    for (kind, partition, entity), held in opened.items():
        if kind == Kind.USER:
            write = UserWrite(version.encode_user(held.state), version.user_expires(held.state))
            yield FoldedShard(Kind.USER, partition, entity, write, held.events)
        elif kind == Kind.ITEM:
            data = version.encode_item(held.state)
            yield FoldedShard(Kind.ITEM, partition, id_hash(entity), data, held.events)
        else:
            yield FoldedShard(Kind.PRODUCT, partition, id_hash(entity), held.state.encode(), held.events)
