"""What was rejected: counted by reason, a few examples of each, and every row with its reason as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from batch.table_events import LEFT_OUT, Verdicts
from batch.table_reading import Batch

EXAMPLES_A_REASON: Final = 3
LONGEST_CELL: Final = 100_000
"""A reader of CSV refuses a cell of 131,072 characters and more."""


@dataclass(frozen=True, slots=True)
class Example:
    """One rejected row: its line, the column at fault (empty: the whole row) and what stood there."""

    line: int
    column: str
    value: str


class Rejects:
    """The rejected rows of one file; `names` are the file's columns."""

    def __init__(self, names: Sequence[str]) -> None:
        self._width = len(names)
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow([*names, "line", "column", "reason", "surplus"])
        self._names = list(names)
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[Example]] = {}
        self.left_out = 0

    @property
    def total(self) -> int:
        """How many rows were rejected; what the mapping leaves out is not among them."""
        return self.counts.total()

    def add(self, line: int, fields: Sequence[str], column: str, reason: str) -> None:
        """Keep one row."""
        self.counts[reason] += 1
        cells = [*fields[: self._width], *[""] * (self._width - len(fields))]
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_A_REASON:
            value = cells[self._names.index(column)] if column in self._names else ""
            examples.append(Example(line, column, value))
        cells = [cell[:LONGEST_CELL] for cell in cells]
        self._writer.writerow([*cells, line, column, reason, " | ".join(fields[self._width :])])

    def add_batch(self, batch: Batch, verdicts: Verdicts) -> None:
        """Keep the rejected rows of a batch, in order of their lines."""
        found = [(bad.line, bad.fields, "", bad.reason) for bad in batch.bad]
        found += self._judged(batch, verdicts)
        for row in sorted(found, key=lambda one: one[0]):
            self.add(*row)

    def _judged(self, batch: Batch, verdicts: Verdicts) -> Iterator[tuple[int, Sequence[str], str, str]]:
        for place in (~verdicts.good).nonzero()[0].tolist():
            column, reason = verdicts.findings[verdicts.finding[place]]
            if reason == LEFT_OUT:
                self.left_out += 1
            else:
                yield int(batch.lines[place]), batch.row(place), column, reason

    def csv(self) -> bytes:
        """All of them as UTF-8 with a header: the file's columns, line, column at fault, reason, surplus fields."""
        return self._text.getvalue().encode(errors="replace")
