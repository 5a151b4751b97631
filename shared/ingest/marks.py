"""Where a partition stands, and what that says about the records offered to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.errors import InfrastructureFault, StreamRecreated
from shared.ingest.recorded_log import RecordedLog
from shared.ports import LogRecord, Mark, StateStore, Touched, Verdict

REBUILD = "python -m local.rebuild_state --data DIR"
"""The command that rebuilds all of an empty Redis from the lake and the broker log."""
BACKFILL = "python -m feature_jobs.backfill_state --data DIR"
"""The command that loads state versions that have no mark."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The log's mark and those of the state versions that take part, by name.

    `waiting` are versions without a mark where others stand: they take part when their backfill has left one.
    """

    log: Mark | None
    versions: Mapping[str, Mark | None]
    waiting: tuple[str, ...] = ()

    def positions(self) -> dict[str, int]:
        """The versions' sequences, -1 where there is no mark."""
        return {name: sequence_of_mark(mark) for name, mark in self.versions.items()}


def sequence_of_mark(mark: Mark | None) -> int:
    """The mark's sequence, -1 when there is none."""
    return -1 if mark is None else mark.sequence


class MarkGuard:
    """Reads a partition's marks and refuses to go on from ones that make no sense."""

    def __init__(self, source: str, partition: int, store: StateStore, recorded: RecordedLog) -> None:
        self._source = source
        self._partition = partition
        self._store = store
        self._recorded = recorded

    def read(self, versions: Sequence[str]) -> Marks:
        """The marks as the store holds them.

        Raises:
            InfrastructureFault: the store does not answer, or has none of these versions where the lake or the log's
                mark says that events are in: the state was lost or never loaded, and the message names the command.
        """
        state = self._store.read(self._source, self._partition, versions, Touched())
        marks = {name: state.versions[name].mark for name in versions}
        missing = tuple(name for name, mark in marks.items() if mark is None)
        if state.log_mark is None and len(missing) == len(versions):
            if not self._recorded.lake_is_empty():
                raise InfrastructureFault(
                    f"{self._name}: the lake holds events and the state has no mark; rebuild the state: {REBUILD}"
                )
            return Marks(None, marks)
        if state.log_mark is None or len(missing) == len(versions):
            raise InfrastructureFault(
                f"{self._name}: no mark of {', '.join(missing) or 'the log'} where others stand; load it: {BACKFILL}"
            )
        return Marks(state.log_mark, {name: mark for name, mark in marks.items() if mark is not None}, missing)

    def refuse_recreated(self, pending: Sequence[LogRecord], marks: Marks) -> None:
        """A record that is in already must be the one that is in.

        Instants do not fall along a log (but for brokers whose clocks differ a little), so only the record at the mark
        and records enqueued after it need a look at the log. Raises StreamRecreated.
        """
        mark = marks.log
        if mark is None:
            return
        for record in pending:
            if record.sequence > mark.sequence:
                return
            at_mark = record.sequence == mark.sequence and record.enqueued_at != mark.enqueued_at
            if not at_mark and record.enqueued_at <= mark.enqueued_at:
                continue
            held = self._recorded.find(record.sequence)
            if held is None or (held.verdict is not Verdict.SKIPPED and held.enqueued_at != record.enqueued_at):
                raise StreamRecreated(
                    f"{self._name}: sequence {record.sequence} comes as enqueued at {record.enqueued_at}, the log "
                    f"holds {held.enqueued_at if held else 'nothing'}: the stream was made anew; change EVENT_SOURCE"
                )

    @property
    def _name(self) -> str:
        return f"{self._source}/{self._partition}"
