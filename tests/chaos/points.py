"""Where a process dies: the named points, and the doom that a child carries with it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redis import Redis


class Point(StrEnum):
    """A moment in the life of a child, right after what the name says unless it says before."""

    BROKER_READ = "after reading the broker"
    STATE_READ = "after reading the state"
    COMMIT_BEFORE = "before the commit"
    COMMIT_SENT = "during the commit, the command sent"
    COMMIT_HALF_SENT = "during the commit, the command half sent"
    COMMIT_DONE = "after the commit"
    CHECKPOINT_SET = "after the checkpoint"
    SEAL_READ = "while sealing, rows read"
    SEAL_WRITTEN = "while sealing, file written"
    SEAL_TRIMMED = "while sealing, landing trimmed"
    REFILL_LAKE = "during a gap refill, log read"
    REFILL_BROKER = "during a gap refill, broker read"
    REFILL_COMMIT = "during a gap refill, before its commit"
    BACKFILL_READ = "during backfill, lake read"
    BACKFILL_LOADED = "during backfill, shards loaded"
    BACKFILL_MARK = "during backfill, between the marks"
    BACKFILL_MARKED = "during backfill, a partition marked"
    COMPACTION = "during compaction"
    RANDOM = "at a random instant"


NAMED = {
    "after reading": (Point.BROKER_READ, Point.STATE_READ),
    "before the commit": (Point.COMMIT_BEFORE,),
    "during the commit": (Point.COMMIT_SENT, Point.COMMIT_HALF_SENT),
    "after the commit": (Point.COMMIT_DONE,),
    "after the checkpoint": (Point.CHECKPOINT_SET,),
    "while sealing": (Point.SEAL_READ, Point.SEAL_WRITTEN, Point.SEAL_TRIMMED),
    "during a gap refill": (Point.REFILL_LAKE, Point.REFILL_BROKER, Point.REFILL_COMMIT),
    "during backfill": (
        Point.BACKFILL_READ, Point.BACKFILL_LOADED, Point.BACKFILL_MARK, Point.BACKFILL_MARKED,
    ),
    "at random": (Point.RANDOM,),
}  # fmt: skip
"""What every run must have reached, by the name the report gives it."""

STREAM = [
    NAMED[name]
    for name in (
        "after reading", "before the commit", "during the commit", "after the commit", "after the checkpoint",
        "while sealing",
    )
]  # fmt: skip
REFILL = NAMED["during a gap refill"]
BACKFILL = NAMED["during backfill"]


@dataclass(slots=True)
class Doom:
    """Kills its own process with SIGKILL at the `calls`-th time that `point` is reached; `witness` learns of it."""

    point: Point | None
    calls: int
    witness: int
    """A file descriptor that survives the process."""

    def reach(self, point: Point) -> None:
        """Count one arrival."""
        if self.due(point):
            self.die(point)

    def due(self, point: Point) -> bool:
        """Count one arrival and say whether it is the last."""
        if point is not self.point:
            return False
        self.calls -= 1
        return self.calls == 0

    def die(self, point: Point) -> None:
        """At once, as a power cut: nothing is flushed, closed or answered."""
        os.write(self.witness, point.name.encode())
        os.kill(os.getpid(), signal.SIGKILL)


class Fuse:
    """Ends the process of a client at a command about a mark, before its answer can arrive."""

    def __init__(self, client: Redis, doom: Doom) -> None:
        """Connections that the client makes from now on obey."""
        self._doom = doom
        self._lit: Point | None = None
        pool = client.connection_pool
        plain = pool.connection_class

        def send(connection: Any, command: Any, check_health: bool = True) -> None:
            data = command if isinstance(command, str) else b"".join(command)
            raw = data.encode() if isinstance(data, str) else data
            if self._lit is not None and _OF_A_MARK in raw:
                share = {Point.COMMIT_SENT: 1.0, Point.COMMIT_HALF_SENT: 0.5}.get(self._lit, 0.0)
                connection._sock.sendall(raw[: int(len(raw) * share)])
                self._doom.die(self._lit)
            plain.send_packed_command(connection, command, check_health)

        pool.disconnect()
        pool.reset()
        pool.connection_class = type("FusedConnection", (plain,), {"send_packed_command": send})

    def light(self, point: Point) -> None:
        """Die at `point` with the next command that names a version's mark."""
        self._lit = point


_OF_A_MARK = b":mark:"
