"""The log: what was decided about each sequence, wherever it lies now, in landing or in the lake."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shared.ingest.chunks import end_of
from shared.ingest.lake import highest_sealed, read_range
from shared.ports import BlobStore, LandingRow, StateStore

PAGE = 20_000
"""Sequences looked up at once."""


@dataclass(frozen=True, slots=True)
class RecordedPage:
    """The rows held for `first` to `last`, ascending; what no row covers was never recorded, or is lost."""

    first: int
    last: int
    rows: Sequence[LandingRow]


class RecordedLog:
    """One partition's rows, in pages; the last page is kept, as chunks walk through it."""

    def __init__(self, source: str, partition: int, store: StateStore, blobs: BlobStore) -> None:
        self._source = source
        self._partition = partition
        self._store = store
        self._blobs = blobs
        self._page: RecordedPage | None = None

    def forget(self) -> None:
        """Drop the page that was kept."""
        self._page = None

    def page(self, first: int, last: int) -> RecordedPage:
        """What is recorded from `first` on, up to `last` at most; a skipped range is cut to begin at `first`."""
        page = self._page
        if page is None or not page.first <= first <= page.last:
            page = self._page = self._load(first, last)
        rows = list(page.rows[bisect_left(page.rows, first, key=end_of) :])
        if rows and rows[0].sequence < first:
            rows[0] = replace(rows[0], sequence=first)
        return RecordedPage(first, min(last, page.last), rows)

    def rows(self, first: int, last: int) -> list[LandingRow]:
        """Every row that touches `first` to `last`, ascending."""
        rows = {row.sequence: row for row in read_range(self._blobs, self._source, self._partition, first, last)}
        for row in self._store.landing_rows(self._source, self._partition, first, last):
            rows.setdefault(row.sequence, row)
        return [rows[sequence] for sequence in sorted(rows)]

    def find(self, sequence: int) -> LandingRow | None:
        """The row that speaks for a sequence."""
        rows = self.rows(sequence, sequence)
        return rows[0] if rows else None

    def lake_is_empty(self) -> bool:
        """Whether the lake holds nothing of this partition."""
        return highest_sealed(self._blobs, self._source, self._partition) is None

    def _load(self, first: int, last: int) -> RecordedPage:
        end = min(last, first + PAGE - 1)
        rows = self.rows(first, end)
        if not rows and end < last:
            highest = highest_sealed(self._blobs, self._source, self._partition)
            if highest is None or highest.sequence < first:
                end = last  # nothing is recorded beyond: one page may stand for all of it
        if rows:
            end = max(end, end_of(rows[-1]))
        return RecordedPage(first, end, rows)
