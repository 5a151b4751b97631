"""The gap rule: what is missing before a run is refilled from the lake, then from the broker, then recorded as lost."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from shared.ingest.chunks import MOST_RECORDS, Gap
from shared.ingest.recorded_log import RecordedLog, RecordedPage
from shared.ports import LandingRow, LogRecord, Mark, RetainedLog, Verdict

log = logging.getLogger(__name__)

BROKER_PAGE = MOST_RECORDS
NO_RECORD = "the broker holds no record here"
GONE = "gone: neither the lake nor the broker holds it any more"


class GapFiller:
    """Finds what belongs into a gap of one partition."""

    def __init__(self, source: str, partition: int, recorded: RecordedLog, broker: RetainedLog) -> None:
        self._source = source
        self._partition = partition
        self._recorded = recorded
        self._broker = broker

    def fill(self, gap: Gap, mark: Mark | None, next_enqueued_at: int) -> Sequence[LandingRow] | Sequence[LogRecord]:
        """What comes first in the gap: rows whose verdicts stand, records to fold, or one skipped row.

        The answer starts at `gap.first` and may be followed by more; ask again after it is committed. A skipped row
        takes its instant from `mark`, or from `next_enqueued_at` where nothing is in yet. Raises InfrastructureFault
        when lake, landing or broker do not answer.
        """
        page = self._recorded.page(gap.first, gap.last)
        if page.rows and page.rows[0].sequence == gap.first:
            return page.rows
        return self.read_broker(gap, page, mark.enqueued_at if mark else next_enqueued_at)

    def read_broker(self, gap: Gap, page: RecordedPage, enqueued_at: int) -> Sequence[LandingRow] | Sequence[LogRecord]:
        """The broker's records where the lake holds none, or the skipped row that says so."""
        end = min(gap.last, page.last)
        if page.rows:
            end = min(end, page.rows[0].sequence - 1)
        records = self._broker.read(self._partition, gap.first - 1, BROKER_PAGE)
        if records and records[0].sequence == gap.first:
            return [record for record in records if record.sequence <= end]
        # Asked after the read, so that what was trimmed in between counts as gone and not as never written.
        retained = self._broker.first_sequence(self._partition)
        if records:
            end = min(end, records[0].sequence - 1)
        if retained <= gap.first:
            log.info("%s/%d: %s, sequences %d to %d", self._source, self._partition, NO_RECORD, gap.first, end)
            return [self._skipped(gap.first, end, enqueued_at, NO_RECORD)]
        end = min(end, retained - 1)
        log.error(
            "ALARM %s/%d: sequences %d to %d are %s", self._source, self._partition, gap.first, end, GONE,
            extra={"source": self._source, "partition": self._partition, "first": gap.first, "last": end},
        )  # fmt: skip
        return [self._skipped(gap.first, end, enqueued_at, GONE)]

    def _skipped(self, first: int, last: int, enqueued_at: int, reason: str) -> LandingRow:
        return LandingRow(
            self._source, self._partition, first, enqueued_at, Verdict.SKIPPED, reason=reason, last_sequence=last
        )
