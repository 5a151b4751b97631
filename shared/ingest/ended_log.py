"""Erasures in partitions that get no more records: ingested history, and streams that another one has followed.

Their broker has nothing for them, or never was one. So the erasure is appended to the partition's own log, one record
after the mark, through the one writer there is: it lands, is sealed and folded again like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shared.errors import InfrastructureFault, StreamRecreated
from shared.events import encode_event
from shared.ingest.erasures import Receipt
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.marks import sequence_of_mark
from shared.ingest.processor import OnBroken, PartitionProcessor, alarm
from shared.ports import BlobStore, LogRecord, PartitionState, StateStore, Touched

_TRIES: Final = 10
"""Other erasures may take the sequence first, one a try."""


class EndedStream:
    """The RetainedLog of a source whose broker has no more to give: it ends where the state stands."""

    def __init__(self, source: str, store: StateStore) -> None:
        self._source = source
        self._store = store

    def read(self, partition: int, after_sequence: int, limit: int) -> list[LogRecord]:  # noqa: ARG002 - as the port has it
        """Nothing."""
        return []

    def last_sequence(self, partition: int) -> int | None:
        """Where the log's mark stands. Raises StateUnavailable."""
        mark = self._store.read(self._source, partition, (), Touched()).log_mark
        return None if mark is None else mark.sequence

    def first_sequence(self, partition: int) -> int:
        """One more than the last."""
        last = self.last_sequence(partition)
        return 0 if last is None else last + 1

    def trim_below(self, partition: int, sequence: int) -> None:
        """There is nothing to forget."""


def read_user(
    store: StateStore, source: str, partition: int, versions: Sequence[AnyVersion], receipt: Receipt
) -> tuple[PartitionState, dict[str, Any]]:
    """The partition's marks, and the user's shard by state version where there is one. Raises StateUnavailable."""
    subject = receipt.subject
    state = store.read(source, partition, [one.name for one in versions], Touched(users=(subject,)))
    stored = {one.name: state.versions[one.name].users[subject] for one in versions}
    return state, {one.name: one.decode_user(stored[one.name]) for one in versions if stored[one.name] is not None}


def append_to_ended(
    receipt: Receipt,
    source: str,
    partition: int,
    *,
    store: StateStore,
    versions: Sequence[AnyVersion],
    blobs: BlobStore,
    on_broken: OnBroken = alarm,
) -> int | None:
    """Leave a tombstone where this partition holds the user; its sequence, None where there is nothing of hers.

    Safe to repeat, and for several workers at once: the mark lets one through, and the others look again.

    Raises InfrastructureFault, also when other erasures were faster again and again; BadDeployment.
    """
    body = encode_event(receipt.event())
    for _ in range(_TRIES):
        state, shards = read_user(store, source, partition, versions, receipt)
        if all(shard.erased_at >= receipt.erased_at for shard in shards.values()):
            return max((shard.sequence for shard in shards.values()), default=None)
        processor = PartitionProcessor(
            source,
            partition,
            store=store,
            versions=versions,
            blobs=blobs,
            broker=EndedStream(source, store),
            on_broken=on_broken,
        )
        sequence = sequence_of_mark(state.log_mark) + 1
        enqueued_at = max(receipt.erased_at, 0 if state.log_mark is None else state.log_mark.enqueued_at)
        try:
            processor.catch_up()  # a version that was loaded before an earlier erasure lags behind the log
            processor.process([LogRecord(source, partition, sequence, enqueued_at, body)])
        except StreamRecreated:
            continue  # another erasure has this sequence
    raise InfrastructureFault(f"{source}/{partition}: an erasure found its place taken {_TRIES} times; it tries again")
