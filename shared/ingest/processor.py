"""The one writer of a partition's state: records in, commits out, each event counted once whatever happens between."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shared.errors import BadDeployment, InfrastructureFault, MarkMoved
from shared.ingest.chunks import MOST_RECORDS, Gap, end_of, next_chunk, ordered
from shared.ingest.fold_chunk import (
    FOLD_FAILED,
    AnyVersion,
    Entry,
    FoldFailed,
    dead_entry,
    fold_chunk,
    fresh_entry,
    standing_entry,
    touched_by,
)
from shared.ingest.gaps import GapFiller
from shared.ingest.marks import REBUILD, MarkGuard, Marks, sequence_of_mark
from shared.ingest.recorded_log import RecordedLog
from shared.ports import (
    BlobStore,
    LandingRow,
    LogRecord,
    PartitionCommit,
    PartitionState,
    RetainedLog,
    StateStore,
    Verdict,
)

log = logging.getLogger(__name__)

MOST_REFUSALS = 20
"""Refused commits in a row; a partition has one other consumer at most, and for moments."""

FAILURE_WINDOW = 100
MOST_FAILURES = 5


@dataclass(frozen=True, slots=True)
class _Step:
    """The next run to commit and the versions it is for; at most one of `rows` and `records` is not empty."""

    rows: Sequence[LandingRow]
    records: Sequence[LogRecord]
    versions: Sequence[AnyVersion]
    after: int
    until: int | None


class PartitionProcessor:
    """Folds one partition; its calls take turns.

    Several processors, here or elsewhere, may run on the same partition: its marks let one commit through at a time.
    """

    def __init__(
        self,
        source: str,
        partition: int,
        *,
        store: StateStore,
        versions: Sequence[AnyVersion],
        blobs: BlobStore,
        broker: RetainedLog,
    ) -> None:
        """`versions` are the state versions to keep; the first decides what is a duplicate."""
        self._source = source
        self._partition = partition
        self._store = store
        self._versions = tuple(versions)
        self._broker = broker
        self._recorded = RecordedLog(source, partition, store, blobs)
        self._gaps = GapFiller(source, partition, self._recorded, broker)
        self._guard = MarkGuard(source, partition, [version.name for version in versions], store, self._recorded)
        self._marks: Marks | None = None
        self._turn = threading.Lock()

    def process(self, records: Sequence[LogRecord]) -> None:
        """Bring the state up to the last of these records, whatever of them, or before them, is in already.

        Raises:
            InfrastructureFault: something does not answer, a record lacks its coordinates, or there is no mark where
                the lake holds events. Nothing is lost: offer the records again.
            StreamRecreated: the broker's stream was made anew under the same name.
            BadDeployment: more than 5 folds failed among 100 sequences.
        """
        pending = ordered(records, self._source, self._partition)
        if pending:
            with self._turn:
                self._run(pending, pending[-1].sequence)

    def catch_up(self) -> None:
        """Compare the marks with the broker's last sequence and fill what is missing, so a quiet partition heals too.

        Raises as `process`.
        """
        last = self._broker.last_sequence(self._partition)
        with self._turn:
            self._marks = None
            self._run([], -1 if last is None else last)

    def _run(self, pending: Sequence[LogRecord], through: int) -> None:
        refusals, most = 0, MOST_RECORDS
        confirmed = False  # the marks are the store's, not what an earlier call remembers
        checked = False
        try:
            while True:
                if self._marks is None:
                    self._marks, confirmed, checked = self._guard.read(), True, False
                marks = self._marks
                if not checked:
                    self._guard.refuse_recreated(pending, marks)
                    checked = True
                step = self._next_step(pending, marks, through)
                if step is None and confirmed:
                    return
                if step is None:
                    self._marks = None
                    continue
                try:
                    most = self._commit(step, marks, most)
                    refusals, confirmed = 0, True
                except MarkMoved:
                    refusals += 1
                    self._marks = None
                    if refusals > MOST_REFUSALS:
                        raise InfrastructureFault(f"{self._name}: {refusals} commits in a row were refused") from None
        except BaseException:
            self._marks = None
            raise
        finally:
            self._recorded.forget()

    def _next_step(self, pending: Sequence[LogRecord], marks: Marks, through: int) -> _Step | None:
        """The versions furthest behind go next, up to where the next one stands, so that all join."""
        positions = marks.positions()
        log_at = sequence_of_mark(marks.log)
        base = min(log_at, *positions.values())
        above = [position for position in (log_at, *positions.values()) if position > base]
        until = min(above, default=None)
        members = tuple(version for version in self._versions if positions[version.name] == base)
        if (
            log_at > base or not members
        ):  # what was decided already stands, for a version that lags and for a log that does
            page = self._recorded.page(base + 1, max(above))
            if not page.rows or page.rows[0].sequence != base + 1:
                raise InfrastructureFault(
                    f"{self._name}: the log lost sequence {base + 1}; rebuild the state: {REBUILD}"
                )
            return _Step(page.rows, (), members, base, until)
        if base >= through:
            return None
        offered = next_chunk(pending, base, until=until)
        if isinstance(offered, list):
            return _Step((), offered, members, base, until)
        gap = offered or Gap(base + 1, through)
        following = next((record.enqueued_at for record in pending if record.sequence > base), 0)
        found = self._gaps.fill(gap, marks.log, following)
        rows = [one for one in found if isinstance(one, LandingRow)]
        records = [one for one in found if isinstance(one, LogRecord)]
        return _Step(rows, records, members, base, until)

    def _commit(self, step: _Step, marks: Marks, most: int) -> int:
        """Commit a chunk of the step and return how many records the next one may hold."""
        entries = _chunk(step, most)
        touched = touched_by(entries)
        names = [version.name for version in step.versions]
        state = self._store.read(self._source, self._partition, names, touched)
        with_log = sequence_of_mark(marks.log) == step.after
        if state.log_mark != marks.log or any(state.versions[name].mark != marks.versions[name] for name in names):
            raise MarkMoved(f"{self._name}: the marks moved since they were read")
        try:
            commit = fold_chunk(entries, state, step.versions, with_log=with_log)
        except FoldFailed as error:
            if len(entries) > 1:
                return len(entries) // 2
            commit = self._isolated(entries[0], error, state, step, with_log=with_log)
        self._store.commit(commit)
        self._marks = Marks(
            commit.mark_after if with_log else marks.log, {**marks.versions, **dict.fromkeys(names, commit.mark_after)}
        )
        return MOST_RECORDS

    def _isolated(
        self, entry: Entry, error: FoldFailed, state: PartitionState, step: _Step, *, with_log: bool
    ) -> PartitionCommit:
        """The commit of an event whose fold raises: a dead letter, unless that happens too often."""
        row = entry.row
        if entry.standing:
            raise BadDeployment(
                f"{self._name}: folding sequence {row.sequence}, which the log holds as {row.verdict}, failed: {error}"
            ) from error
        self._count_failure(row.sequence, error)
        log.error("%s: sequence %d is a dead letter: %s", self._name, row.sequence, error)
        return fold_chunk([dead_entry(row, f"{FOLD_FAILED}{error}")], state, step.versions, with_log=with_log)

    def _count_failure(self, sequence: int, error: FoldFailed) -> None:
        first = max(0, sequence - FAILURE_WINDOW + 1)
        failed = 1 + sum(
            row.verdict is Verdict.DEAD and (row.reason or "").startswith(FOLD_FAILED)
            for row in (self._recorded.rows(first, sequence - 1) if sequence else ())
        )
        if failed > MOST_FAILURES:
            raise BadDeployment(
                f"{self._name}: {failed} of {FAILURE_WINDOW} events up to sequence {sequence} could not be folded; the "
                f"last one: {error}. Deploy a version that can; nothing was lost"
            ) from error

    @property
    def _name(self) -> str:
        return f"{self._source}/{self._partition}"


class EventProcessor:
    """The processors of all partitions of one event source, each made when it is first needed."""

    def __init__(
        self, source: str, *, store: StateStore, versions: Sequence[AnyVersion], blobs: BlobStore, broker: RetainedLog
    ) -> None:
        self._source = source
        self._store = store
        self._versions = versions
        self._blobs = blobs
        self._broker = broker
        self._partitions: dict[int, PartitionProcessor] = {}

    def partition(self, number: int) -> PartitionProcessor:
        """The processor of one partition."""
        held = self._partitions.get(number)
        if held is None:
            made = PartitionProcessor(
                self._source, number, store=self._store, versions=self._versions, blobs=self._blobs, broker=self._broker
            )
            held = self._partitions.setdefault(number, made)
        return held

    def process(self, records: Sequence[LogRecord]) -> None:
        """Process a batch that may hold several partitions; raises as `PartitionProcessor.process`."""
        groups: dict[int, list[LogRecord]] = defaultdict(list)
        for record in records:
            groups[record.partition].append(record)
        for number in groups:
            if isinstance(number, bool) or not isinstance(number, int):
                raise InfrastructureFault(
                    f"a record of {self._source} names no partition: check the trigger's metadata"
                )
        for number, group in sorted(groups.items()):
            self.partition(number).process(group)

    def catch_up(self, partitions: Sequence[int]) -> None:
        """At start, on reconnect and every minute: see `PartitionProcessor.catch_up`."""
        for number in partitions:
            self.partition(number).catch_up()


def _chunk(step: _Step, most: int) -> list[Entry]:
    if step.records:
        run = next_chunk(step.records, step.after, most=most, until=step.until)
        assert isinstance(run, list), "a step starts right after its base"
        return [fresh_entry(record) for record in run]
    first = step.rows[0]
    if step.until is not None and end_of(first) > step.until:
        return [standing_entry(replace(first, last_sequence=step.until))]
    rows = next_chunk(step.rows, step.after, most=most, until=step.until)
    assert isinstance(rows, list), "a step starts right after its base"
    return [standing_entry(row) for row in rows]
