"""What a replay shows while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from local.replay_source import Place

LINE_EVERY_S: Final = 5.0

type Shown = Callable[[Place, float], None]
"""Takes the place reached and by how many seconds the replay is behind its pace."""


@contextmanager
def replay_screen(total: int, done: int, seconds: Callable[[], float], stream: TextIO = sys.stderr) -> Iterator[Shown]:
    """Show the way from `done` to `total` events while the block runs; `seconds` is a monotonic clock."""
    rate = _rate_since(seconds, done)
    if not stream.isatty():
        yield _lines(total, rate, seconds, stream)
        return
    text, counts = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
    columns = (text, BarColumn(), MofNCompleteColumn(), counts, TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done, rate="")

        def show(place: Place, behind_s: float) -> None:
            bar.update(task, completed=place.total, description=place.day, rate=rate(place, behind_s))

        yield show


def _rate_since(seconds: Callable[[], float], done: int) -> Callable[[Place, float], str]:
    begun = seconds()

    def rate(place: Place, behind_s: float) -> str:
        speed = (place.total - done) / max(seconds() - begun, 1e-3)
        late = f", {behind_s:.0f} s behind" if behind_s >= 1 else ""
        return f"{speed:,.0f} events/s{late}"

    return rate


def _lines(total: int, rate: Callable[[Place, float], str], seconds: Callable[[], float], stream: TextIO) -> Shown:
    shown = seconds()

    def show(place: Place, behind_s: float) -> None:
        nonlocal shown
        if seconds() - shown >= LINE_EVERY_S:
            shown = seconds()
            stream.write(f"{place.day}: {place.total:,} of {total:,} events, {rate(place, behind_s)}\n")
            stream.flush()

    return show
