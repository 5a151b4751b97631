"""The one writer of a partition's state: records in, commits out, each event counted once whatever happens between."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from shared.errors import CorruptRecord, InfrastructureFault, MarkMoved, RecommndrError, StreamRecreated
from shared.ingest.chunks import MOST_RECORDS, ordered
from shared.ingest.fold_chunk import (
    FOLD_FAILED,
    AnyVersion,
    Entry,
    FoldFailed,
    dead_entry,
    fold_chunk,
    touched_by,
)
from shared.ingest.gaps import GapFiller
from shared.ingest.isolation import Failure, failures_alone, refuse_bad_deployment
from shared.ingest.marks import MarkGuard, Marks, sequence_of_mark
from shared.ingest.recorded_log import RecordedLog
from shared.ingest.steps import RowsLost, Step, Steps
from shared.ports import BlobStore, LogRecord, PartitionCommit, PartitionState, RetainedLog, StateStore

log = logging.getLogger(__name__)

MOST_REFUSALS = 20
"""Refused commits in a row; a partition has one other consumer at most, and for moments."""

LAGGING_STEPS = 20
LAGGING_STEPS_CATCHING_UP = 500
"""Chunks that versions which lag may take in one call: new events must not wait for a long history."""

OnBroken = Callable[[str, str], None]
"""Told a state version's name and why it is folded no longer; it must last before it returns."""


def alarm(version: str, reason: str) -> None:
    """The least that must happen when a state version is broken."""
    log.error("ALARM state version %s is broken and folded no longer: %s", version, reason)


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
        on_broken: OnBroken = alarm,
    ) -> None:
        """`versions` are the state versions to keep; the first that has a mark decides what is dead or a duplicate."""
        self._source = source
        self._partition = partition
        self._store = store
        self._versions = tuple(versions)
        self._broker = broker
        self._on_broken = on_broken
        self._recorded = RecordedLog(source, partition, store, blobs)
        self._steps = Steps(self._name, self._recorded, GapFiller(source, partition, self._recorded, broker))
        self._guard = MarkGuard(source, partition, store, self._recorded)
        self._held: tuple[tuple[AnyVersion, ...], Marks] | None = None
        self._turn = threading.Lock()

    def keep(self, versions: Sequence[AnyVersion]) -> None:
        """Fold these state versions from the next chunk on."""
        self._versions = tuple(versions)

    def process(self, records: Sequence[LogRecord]) -> None:
        """Bring the state up to the last of these records, whatever of them, or before them, is in already.

        Raises:
            InfrastructureFault: something does not answer, a record lacks its coordinates, or no version has a mark
                where the lake holds events. Nothing is lost: offer the records again.
            StreamRecreated: the broker's stream was made anew under the same name.
            BadDeployment: more than 5 folds failed among 100 sequences.
        """
        pending = ordered(records, self._source, self._partition)
        if pending:
            with self._turn:
                self._run(pending, pending[-1].sequence, LAGGING_STEPS)

    def catch_up(self) -> None:
        """Compare the marks with the broker's last sequence and fill what is missing, so a quiet partition heals too.

        A consumer's checkpoint never lies above that sequence, so it needs no look of its own. Raises as `process`.
        """
        last = self._last_sequence()
        with self._turn:
            self._held = None
            mark = sequence_of_mark(self._marks().log)
            if mark > last and mark > (last := self._last_sequence()):
                raise StreamRecreated(
                    f"{self._name}: the broker log ends at sequence {last} and the state stands at {mark}: the stream "
                    "was made anew, or restored from a copy; give it another EVENT_SOURCE"
                )
            self._run([], last, LAGGING_STEPS_CATCHING_UP)

    def _last_sequence(self) -> int:
        last = self._broker.last_sequence(self._partition)
        return -1 if last is None else last

    def _marks(self) -> Marks:
        """The marks of the versions that are kept now: those known from before, or the store's."""
        versions = self._versions
        if self._held is None or self._held[0] is not versions:
            self._held = (versions, self._guard.read([version.name for version in versions]))
        return self._held[1]

    def _run(self, pending: Sequence[LogRecord], through: int, lagging: int) -> None:
        refusals, most = 0, MOST_RECORDS
        confirmed = False  # the marks are the store's, not what an earlier call remembers
        checked = False
        try:
            while True:
                known = self._held
                marks = self._marks()
                if self._held is not known:
                    confirmed, checked = True, False
                if not checked:
                    self._guard.refuse_recreated(pending, marks)
                    checked = True
                step = self._next_step(pending, marks, through, lag=lagging > 0)
                if step is None and confirmed:
                    return
                if step is None:
                    self._held = None
                    continue
                lagging -= step.lags
                try:
                    most = self._commit(step, marks, most)
                    refusals, confirmed = 0, True
                except MarkMoved:
                    refusals += 1
                    self._held = None
                    if refusals > MOST_REFUSALS:
                        raise InfrastructureFault(f"{self._name}: {refusals} commits in a row were refused") from None
        except BaseException:
            self._held = None
            raise
        finally:
            self._recorded.forget()

    def _next_step(self, pending: Sequence[LogRecord], marks: Marks, through: int, *, lag: bool) -> Step | None:
        taking_part = self._taking_part(marks)
        try:
            return self._steps.next(pending, marks, through, taking_part, lag=lag)
        except RowsLost as error:
            if taking_part[0] in error.versions:
                raise
            self._give_up_on({version.name: error for version in error.versions})
            return self._next_step(pending, self._marks(), through, lag=lag)

    def _taking_part(self, marks: Marks) -> tuple[AnyVersion, ...]:
        return tuple(version for version in self._versions if version.name in marks.versions)

    def _commit(self, step: Step, marks: Marks, most: int) -> int:
        """Commit a chunk of the step and return how many records the next one may hold."""
        entries = step.chunk(most)
        touched = touched_by(entries)
        names = [version.name for version in step.versions]
        state = self._store.read(self._source, self._partition, names, touched)
        if state.log_mark != marks.log or any(state.versions[name].mark != marks.versions[name] for name in names):
            raise MarkMoved(f"{self._name}: the marks moved since they were read")
        commit: PartitionCommit | None
        try:
            commit = fold_chunk(entries, state, step.versions, with_log=not step.lags)
        except (FoldFailed, CorruptRecord) as error:
            if len(entries) > 1:
                return len(entries) // 2
            commit = self._isolated(entries[0], error, state, step, marks)
        if commit is not None:
            self._store.commit(commit)
            log_mark = marks.log if step.lags else commit.mark_after
            moved = {**marks.versions, **dict.fromkeys(names, commit.mark_after)}
            self._held = (self._held[0] if self._held else (), Marks(log_mark, moved, marks.waiting))
        return MOST_RECORDS

    def _isolated(
        self, entry: Entry, error: Failure, state: PartitionState, step: Step, marks: Marks
    ) -> PartitionCommit | None:
        """The commit of an event whose fold raises: a dead letter, unless that happens too often.

        None when the fault lies with versions that do not decide: those are given up, and the event is to be folded
        without them.
        """
        failed = failures_alone(entry, state, step.versions, with_log=not step.lags)
        cause = failed.pop(self._taking_part(marks)[0].name, None)
        at_fault = {name: one for name, one in failed.items() if cause is None or isinstance(one, CorruptRecord)}
        if at_fault:
            self._give_up_on(at_fault)
            return None
        if not isinstance(cause, FoldFailed):
            raise error
        refuse_bad_deployment(self._name, entry, cause, self._recorded)
        # What the exception says may quote the event: it stands in the dead letter, not in the log.
        kind = type(cause.__cause__).__name__
        log.error("%s: sequence %d is a dead letter: its fold raised %s", self._name, entry.row.sequence, kind)
        return fold_chunk(
            [dead_entry(entry.row, f"{FOLD_FAILED}{cause}")], state, step.versions, with_log=not step.lags
        )

    def _give_up_on(self, broken: Mapping[str, Exception]) -> None:
        """Fold these versions no longer; the others go on from where they stand."""
        for name, error in broken.items():
            self._on_broken(name, f"{self._name}: {error}")
        self._versions = tuple(version for version in self._versions if version.name not in broken)
        self._held = None

    @property
    def _name(self) -> str:
        return f"{self._source}/{self._partition}"


class EventProcessor:
    """The processors of all partitions of one event source, each made when it is first needed."""

    def __init__(
        self,
        source: str,
        *,
        store: StateStore,
        versions: Sequence[AnyVersion],
        blobs: BlobStore,
        broker: RetainedLog,
        on_broken: OnBroken = alarm,
    ) -> None:
        """See `PartitionProcessor`."""
        self._source = source
        self._store = store
        self._versions = tuple(versions)
        self._blobs = blobs
        self._broker = broker
        self._on_broken = on_broken
        self._partitions: dict[int, PartitionProcessor] = {}

    def partition(self, number: int) -> PartitionProcessor:
        """The processor of one partition."""
        held = self._partitions.get(number)
        if held is None:
            made = PartitionProcessor(
                self._source,
                number,
                store=self._store,
                versions=self._versions,
                blobs=self._blobs,
                broker=self._broker,
                on_broken=self._give_up_on,
            )
            held = self._partitions.setdefault(number, made)
        return held

    def keep(self, versions: Sequence[AnyVersion]) -> None:
        """Fold these state versions, in every partition; nothing happens when they are the ones that are folded."""
        if [version.name for version in versions] != [version.name for version in self._versions]:
            self._versions = tuple(versions)
            for processor in list(self._partitions.values()):
                processor.keep(self._versions)

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
        """At start, on reconnect and every minute: see `PartitionProcessor.catch_up`.

        A partition that cannot is no reason to leave the others; what the first such one raised is raised at the end.
        """
        faults: list[Exception] = []
        for number in partitions:
            try:
                self.partition(number).catch_up()
            except RecommndrError as error:
                faults.append(error)
        if faults:
            raise faults[0]

    def _give_up_on(self, version: str, reason: str) -> None:
        self._on_broken(version, reason)
        self.keep([one for one in self._versions if one.name != version])
