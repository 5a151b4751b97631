"""The child processes of a run: forked warm, watched, killed, buried."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.points import Point

_FAILED = 70


@dataclass(slots=True)
class Child:
    """One process; `kill_at` is when it is killed from outside, by the monotonic clock."""

    pid: int
    name: str
    planned: Point | None
    kill_at: float | None
    _witness: int

    def testimony(self) -> Point | None:
        """The point that the process named right before it killed itself."""
        said = os.read(self._witness, 100).decode()
        os.close(self._witness)
        return Point[said] if said else None


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended: killed at a point, or by itself with a status (0: it was done)."""

    child: Child
    point: Point | None
    status: int


class Crew:
    """Forks children from this process, which must have no threads; `forget` runs in each child first."""

    def __init__(self, log: Path, forget: Callable[[], None]) -> None:
        self._log = log
        self._forget = forget
        self.children: list[Child] = []

    def spawn(
        self, name: str, body: Callable[[int], None], planned: Point | None = None, *, kill_after_s: float | None = None
    ) -> Child:
        """Run `body(witness)` in a child."""
        seen, witness = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._live(name, body, witness)
        os.close(witness)
        kill_at = None if kill_after_s is None else time.monotonic() + kill_after_s
        child = Child(pid, name, planned, kill_at, seen)
        self.children.append(child)
        return child

    def bury(self) -> list[End]:
        """Kill whose time has come and return who ended since the last call."""
        ends = []
        for child in list(self.children):
            if child.kill_at is not None and time.monotonic() >= child.kill_at:
                os.kill(child.pid, signal.SIGKILL)
                child.kill_at = None
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                ends.append(self._end(child, status))
        return ends

    def kill(self, *children: Child) -> list[End]:
        """Kill these at once and return their ends."""
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
        return [self._end(child, os.waitpid(child.pid, 0)[1]) for child in children]

    def _end(self, child: Child, status: int) -> End:
        self.children.remove(child)
        said = child.testimony()
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return End(child, said or Point.RANDOM, 0)
        return End(child, None, os.waitstatus_to_exitcode(status))

    def _live(self, name: str, body: Callable[[int], None], witness: int) -> None:
        status = _FAILED
        try:
            out = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(out, 1)
            os.dup2(out, 2)
            self._forget()
            body(witness)
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it was, this process is a copy and must not go on as its parent
            sys.stderr.write(f"{name}:\n{traceback.format_exc()}")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
