"""What a partition commits next, and for which state versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shared.errors import InfrastructureFault
from shared.ingest.chunks import Gap, end_of, next_chunk
from shared.ingest.fold_chunk import AnyVersion, Entry, fresh_entry, split_at_erasure, standing_entry
from shared.ingest.gaps import GapFiller
from shared.ingest.marks import REBUILD, Marks, sequence_of_mark
from shared.ingest.recorded_log import RecordedLog
from shared.ports import LandingRow, LogRecord


class RowsLost(InfrastructureFault):
    """Neither landing nor lake holds what `versions` have yet to fold."""

    def __init__(self, message: str, versions: Sequence[AnyVersion]) -> None:
        super().__init__(message)
        self.versions = versions


@dataclass(frozen=True, slots=True)
class Step:
    """A run that begins after the sequence `after`, and the versions it is for; `rows` or `records` is empty.

    Nothing of it above `until` may be committed together. `lags` says that the log is past it already.
    """

    rows: Sequence[LandingRow]
    records: Sequence[LogRecord]
    versions: Sequence[AnyVersion]
    after: int
    until: int | None
    lags: bool = False

    def chunk(self, most: int) -> Sequence[Entry]:
        """Its first entries, at most `most`; an erasure stands alone."""
        return split_at_erasure(self._entries(most))

    def _entries(self, most: int) -> list[Entry]:
        if self.records:
            run = next_chunk(self.records, self.after, most=most, until=self.until)
            assert isinstance(run, list), "a step starts right after its base"
            return [fresh_entry(record) for record in run]
        first = self.rows[0]
        if self.until is not None and end_of(first) > self.until:
            return [standing_entry(replace(first, last_sequence=self.until))]
        rows = next_chunk(self.rows, self.after, most=most, until=self.until)
        assert isinstance(rows, list), "a step starts right after its base"
        return [standing_entry(row) for row in rows]


class Steps:
    """Chooses the steps of one partition."""

    def __init__(self, name: str, recorded: RecordedLog, gaps: GapFiller) -> None:
        """`name` is how messages call the partition."""
        self._name = name
        self._recorded = recorded
        self._gaps = gaps

    def next(
        self, pending: Sequence[LogRecord], marks: Marks, through: int, versions: Sequence[AnyVersion], *, lag: bool
    ) -> Step | None:
        """The next step towards `through`, or None when there is none.

        Versions that stand at the log's mark go on first, so that one that lags holds nobody up; but the first of
        `versions`, which decides, must have caught up before anything new is decided. `lag` allows a step for those
        that lag. Raises InfrastructureFault, and RowsLost among them.
        """
        positions = marks.positions()
        log_at = sequence_of_mark(marks.log)
        behind = [version for version in versions if positions[version.name] < log_at]
        if versions[0] in behind:
            return self._lagging(positions, log_at, behind)
        step = self._leading(pending, marks, through, versions)
        return self._lagging(positions, log_at, behind) if step is None and behind and lag else step

    def _lagging(self, positions: dict[str, int], log_at: int, behind: Sequence[AnyVersion]) -> Step:
        """What was decided already, for the versions furthest behind, up to where the next one stands."""
        base = min(positions[version.name] for version in behind)
        members = tuple(version for version in behind if positions[version.name] == base)
        until = min(position for position in (log_at, *positions.values()) if position > base)
        return Step(self._rows(base, log_at, members), (), members, base, until, lags=True)

    def _leading(
        self, pending: Sequence[LogRecord], marks: Marks, through: int, versions: Sequence[AnyVersion]
    ) -> Step | None:
        positions = marks.positions()
        base = sequence_of_mark(marks.log)
        members = tuple(version for version in versions if positions[version.name] == base)
        ahead = [position for position in positions.values() if position > base]
        until = min(ahead, default=None)
        if not members:  # a log that lags behind its versions: what they have folded was decided once
            return Step(self._rows(base, max(ahead), versions), (), (), base, until)
        if ahead:
            page = self._recorded.page(base + 1, max(ahead))
            if page.rows and page.rows[0].sequence == base + 1:
                return Step(page.rows, (), members, base, until)
        if base >= through:
            return None
        offered = next_chunk(pending, base, until=until)
        if isinstance(offered, list):
            return Step((), offered, members, base, until)
        gap = offered or Gap(base + 1, through)
        following = next((record.enqueued_at for record in pending if record.sequence > base), 0)
        found = self._gaps.fill(gap, marks.log, following)
        rows = [one for one in found if isinstance(one, LandingRow)]
        records = [one for one in found if isinstance(one, LogRecord)]
        return Step(rows, records, members, base, until)

    def _rows(self, base: int, last: int, versions: Sequence[AnyVersion]) -> Sequence[LandingRow]:
        page = self._recorded.page(base + 1, last)
        if not page.rows or page.rows[0].sequence != base + 1:
            raise RowsLost(f"{self._name}: the log lost sequence {base + 1}; rebuild the state: {REBUILD}", versions)
        return page.rows
