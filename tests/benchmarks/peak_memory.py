"""The most memory a process and its children hold at once, and how a measure grows from size to size."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import psutil

_LOOK_S: Final = 0.5


@dataclass
class PeakMemory:
    """The peak (MB, pages of its own), and what each program had of it."""

    total_mb: float = 0.0
    by_program: dict[str, float] = field(default_factory=dict)

    def look(self, process: psutil.Process) -> None:
        """Take what is held now into account. Raises psutil.NoSuchProcess when it has ended."""
        found: dict[str, float] = {}
        for one in [process, *process.children(recursive=True)]:
            try:
                found[one.name()] = found.get(one.name(), 0.0) + one.memory_full_info().uss / 1e6
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        if sum(found.values()) > self.total_mb:
            self.total_mb, self.by_program = sum(found.values()), {name: round(mb) for name, mb in found.items()}


@contextmanager
def watched(pid: int) -> Iterator[PeakMemory]:
    """Look at a process twice a second while the block runs."""
    process, peak, done = psutil.Process(pid), PeakMemory(), threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            try:
                peak.look(process)
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def growth(sizes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """From one size to the next: how many times the events, the seconds and the memory."""
    return [
        {
            "events": f"{before['events']:,} to {after['events']:,}",
            "events_times": round(after["events"] / before["events"], 2),
            "seconds_times": round(after["seconds"] / before["seconds"], 2),
            "peak_memory_times": round(after["peak_memory_mb"] / max(before["peak_memory_mb"], 1), 2),
        }
        for before, after in pairwise(sizes)
    ]
