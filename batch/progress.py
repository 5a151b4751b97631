"""Progress with rates: a bar on a terminal, now and then a plain line elsewhere, nothing for what is quick."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_EVERY_S = 3.0


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The rate, or a dash before there is one."""
        return Text(f"{task.speed:,.0f} {self.unit}/s" if task.speed else f"- {self.unit}/s")


@contextmanager
def progress(label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Show how far the work is while the block runs; the block calls what it is given with the units it got done.

    `total` None is work of unknown size. Everything goes to stderr.
    """
    if sys.stderr.isatty():
        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
        with Progress(*columns, transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.advance(task, done)
    else:
        yield _plain(label, total, unit)


def _plain(label: str, total: int | None, unit: str) -> Callable[[int], None]:
    begun = shown = time.monotonic()
    count = 0

    def advance(done: int) -> None:
        nonlocal count, shown
        count += done
        now = time.monotonic()
        if now - shown >= _EVERY_S:
            shown = now
            of = "" if total is None else f" of {total:,}"
            sys.stderr.write(f"{label}: {count:,}{of} {unit}, {count / (now - begun):,.0f} {unit}/s\n")
            sys.stderr.flush()

    return advance
