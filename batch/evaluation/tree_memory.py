"""The memory of a command and all that it starts, at its peak."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

_EVERY_S: Final = 1.0
_PROC: Final = Path("/proc")


class Spent(msgspec.Struct, frozen=True):
    """Wall seconds, and the largest sum of memory that the processes had to themselves (0 where it cannot be read)."""

    seconds: float
    peak_mib: float


def run_measured(command: Sequence[str], folder: Path) -> tuple[int, Spent]:
    """Run a command in a folder and return its exit code and what it took.

    Memory is sampled every second: anonymous and shared pages of the process and its descendants, each shared page
    once; mapped files are not counted, as the kernel takes them back when it needs to.
    """
    started = time.monotonic()
    peak = 0.0
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            while True:
                try:
                    code = process.wait(_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    peak = max(peak, sum(map(_own_mib, _tree(process.pid))))
        except BaseException:
            process.terminate()
            raise
    return code, Spent(round(time.monotonic() - started, 1), round(peak))


def _tree(root: int) -> list[int]:
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for children in (_PROC / str(pid) / "task").glob("*/children"):
            try:
                waiting += map(int, children.read_text(encoding="ascii").split())
            except OSError:  # it ended between the two looks
                continue
    return found


def _own_mib(pid: int) -> float:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it ended, or this system has no such file
        return 0.0
    sizes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines[1:])}
    return (sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0)) / 1024
