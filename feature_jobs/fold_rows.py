"""Lake rows to encoded shards, an entity at a time: the shared fold behind both engines of the backfill.

A row of the lake becomes a row for its user (accepted and duplicate events move her shard) and one for its item (its
counters, or its catalogue entry): exactly what the stream's fold of a chunk changes, with the verdicts as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.catalog import CatalogEntry
from shared.errors import BadDeployment
from shared.events import BEHAVIOUR, EventType, ItemId
from shared.ingest.erased_users import ErasedUsers
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake_table import EVENT_COLUMNS, EVENT_SCHEMA, events_of_table
from shared.ingest.partitioning import partitions_of_keys
from shared.ingest.redaction import together
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

ROW_COLUMNS: Final = ("partition", "sequence", "enqueued_at", "verdict", *EVENT_COLUMNS)
"""What is read of a lake file."""

FOLD_ROWS: Final = 20_000
"""Rows whose events exist at once."""


@dataclass(frozen=True, slots=True)
class FoldedShard:
    """One entity's new shard in one partition, and how many events went into it; `entity` is a user's or item's id."""

    kind: Kind
    partition: int
    entity: str
    shard: UserWrite | bytes
    events: int


def rows_of(table: pa.Table, marks: Mapping[int, Mark], erased: ErasedUsers) -> Iterator[pa.Table]:
    """The rows (`ROW_SCHEMA`) that a lake table holds for users, items and products, at or below the marks.

    Whoever was erased stands under her keyed hash in all rows that name her; rows that were redacted are their item's
    alone. Raises BadDeployment for a row that was folded once and does not decode now.
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
    if chosen["event_type"].null_count:
        row = chosen.filter(pc.is_null(chosen["event_type"])).slice(0, 1).to_pylist()[0]
        raise BadDeployment(
            f"partition {row['partition']}: sequence {row['sequence']} was folded once and does not decode now"
        )
    chosen = together(chosen, erased)
    accepted = pc.equal(chosen["verdict"], Verdict.ACCEPTED.value)
    updates = pc.equal(chosen["event_type"], EventType.ITEM_UPDATED.value)
    for kind, mask in (
        (Kind.USER, pc.and_(pc.invert(updates), pc.is_valid(chosen["user_id"]))),
        (Kind.ITEM, pc.and_(accepted, pc.is_in(chosen["event_type"], value_set=_BEHAVIOUR))),
        (Kind.PRODUCT, pc.and_(accepted, updates)),
    ):
        rows = chosen.filter(mask)
        if rows.num_rows:
            code = pa.repeat(pa.scalar(kind.value, pa.int8()), rows.num_rows)
            columns = [code if name == "kind" else rows[name] for name in ROW_SCHEMA.names]
            yield pa.table(columns, schema=ROW_SCHEMA)


def in_buckets(rows: pa.Table, count: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows split into at most `count` buckets, all of an entity in one, whatever table it comes in."""
    entities = _entities(rows)
    buckets = partitions_of_keys(entities.dictionary.to_pylist(), count)[np.asarray(entities.indices)]
    order = np.argsort(buckets, kind="stable")
    ordered = rows.take(pa.array(order))
    found, starts = np.unique(buckets[order], return_index=True)
    for bucket, (start, stop) in zip(found.tolist(), pairwise([*starts.tolist(), len(order)]), strict=True):
        yield bucket, ordered.slice(start, stop - start)


def fold_rows(rows: pa.Table, version: AnyVersion) -> Iterator[FoldedShard]:
    """Fold rows (`ROW_SCHEMA`) in any order into the shards of their entities, and give out one after the other.

    A coordinate that comes twice, as overlapping files make it, counts once.
    """
    current: int | None = None
    kind, partition, entity, last, events_count = Kind.USER, 0, "", -1, 0
    state: Any = None
    for batch in ordered_rows(rows).to_batches(max_chunksize=FOLD_ROWS):
        columns = [batch[name].to_pylist() for name in ("key", "kind", "partition", "sequence", "enqueued_at")]
        events = events_of_table(pa.Table.from_batches([batch]))
        for key, code, part, sequence, enqueued_at, event in zip(*columns, events, strict=True):
            assert event is not None, "rows_of lets no row without its event pass"
            if key != current:
                if current is not None:
                    yield FoldedShard(kind, partition, entity, _encoded(kind, state, version), events_count)
                current, kind, partition, last, events_count = key, Kind(code), part, -1, 0
                entity = str(event.user_id if kind is Kind.USER else event.item_id)
                state = _empty(kind, entity, version)
            if sequence == last:
                continue
            last = sequence
            events_count += 1
            if kind is Kind.USER:
                version.fold_user(state, event, enqueued_at, sequence)
            elif kind is Kind.ITEM:
                version.fold_item(state, event, enqueued_at)
            else:
                state.apply(event, enqueued_at)
    if current is not None:
        yield FoldedShard(kind, partition, entity, _encoded(kind, state, version), events_count)


def ordered_rows(rows: pa.Table) -> pa.Table:
    """The rows with their `key` (int64), one key an entity and partition, by key and sequence."""
    codes = np.asarray(_entities(rows).indices, dtype=np.int64)
    partitions, kinds = np.asarray(rows["partition"]), np.asarray(rows["kind"])
    keys = (codes * (int(partitions.max(initial=0)) + 1) + partitions) * len(Kind) + kinds
    order = np.lexsort((np.asarray(rows["sequence"]), keys))
    return rows.append_column("key", pa.array(keys)).take(pa.array(order))


def _entities(rows: pa.Table) -> pa.DictionaryArray:
    of_user = pc.equal(rows["kind"], Kind.USER.value)
    entities = pc.if_else(of_user, rows["user_id"], rows["item_id"])
    return pa.chunked_array(entities.chunks, pa.string()).combine_chunks().dictionary_encode()


def _empty(kind: Kind, entity: str, version: AnyVersion) -> Any:  # noqa: ANN401 - each version has its own shards
    if kind is Kind.USER:
        return version.decode_user(None)
    return version.decode_item(None) if kind is Kind.ITEM else CatalogEntry(item_id=ItemId(entity), fields={})


def _encoded(kind: Kind, state: Any, version: AnyVersion) -> UserWrite | bytes:  # noqa: ANN401 - as above
    if kind is Kind.USER:
        return UserWrite(version.encode_user(state), version.user_expires(state))
    encoded: bytes = version.encode_item(state) if kind is Kind.ITEM else state.encode()
    return encoded
