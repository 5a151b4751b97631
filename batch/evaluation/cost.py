"""Seconds and peak memory of each part of a long work."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from batch.evaluation.report import Part

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Meter:
    """Collects parts in the order they ended; parts must not lie within each other."""

    parts: list[Part] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure the block: wall seconds, and the resident memory of this process (not of its children) at its peak.

        Linux alone can forget an earlier peak; elsewhere the figure is the largest of the process so far.
        """
        with suppress(OSError):
            _CLEAR.write_text("5")
        started = time.perf_counter()
        yield
        self.parts.append(Part(name, round(time.perf_counter() - started, 1), round(_peak_mib(), 0)))


def _peak_mib() -> float:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return kibibytes / (2**20 if sys.platform == "darwin" else 1024)
