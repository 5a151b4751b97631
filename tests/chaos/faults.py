"""What happens to the state server and the lake while the workers run: restored copies, crashes, losses, nights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from pathlib import Path

from local.embedded import EmbeddedServer
from tests.chaos.scale import REFILLED_BATCHES, Scale

_FILES = "appendonlydir"
"""The part of a server's folder that is its data; the rest is its socket, pid and log."""


class Fault(StrEnum):
    """What happens to the state or the lake at some point of the stream."""

    COPY = "copy"
    RESTORE = "restore"
    CRASH = "crash"
    LOSS = "loss"
    COMPACTION = "compaction"


@dataclass(frozen=True, slots=True, order=True)
class Planned:
    """A fault that is due once so many events are in."""

    events: int
    fault: Fault = field(compare=False)
    kills: int = field(compare=False, default=0)
    """Kills that belong to it."""


def plan(scale: Scale) -> list[Planned]:
    """All faults of a run, in order."""
    planned: list[Planned] = []

    def add(fault: Fault, shares: Iterator[float], kills: int) -> None:
        planned.extend(Planned(int(share * scale.events), fault, kills) for share in shares)

    def spread(number: int, offset: float) -> Iterator[float]:
        return ((index + offset) / number for index in range(number))

    add(Fault.COPY, spread(scale.restores, 0.3), 0)
    add(Fault.RESTORE, spread(scale.restores, 0.6), 2 if scale.small else 4)
    add(Fault.CRASH, spread(scale.crashes, 0.45), 0)
    add(Fault.COMPACTION, spread(scale.compactions, 0.55), 1)
    # Backfill folds all there is: early ones keep the run short.
    add(Fault.LOSS, spread(scale.losses, 0.5) if scale.small else iter((0.06, 0.15, 0.3)), 1 if scale.small else 5)
    return sorted(planned)


@dataclass(slots=True)
class Copy:
    """A copy of the state's data folder, and how many records were in when it was taken."""

    folder: Path
    records: int


class StateFolder:
    """The state server with its folder, and the copies taken of it."""

    def __init__(self, server: EmbeddedServer, copies: Path) -> None:
        self._server = server
        self._copies = copies
        self._numbers = count(1)
        self._taken: list[Copy] = []
        self.batches_back: list[int] = []

    def copy(self, records: int) -> None:
        """Copy the files of the running server, as a backup of its volume does."""
        held = self._server.folder / _FILES
        while True:
            target = self._copies / f"copy-{next(self._numbers)}"
            before = _manifest(held)
            shutil.copytree(held, target)
            if _manifest(held) == before == _manifest(target):
                self._taken.append(Copy(target, records))
                return
            shutil.rmtree(target)  # the server rewrote its files meanwhile

    def has_old_copy(self, records: int, batch: int) -> bool:
        """Whether a copy lies far enough behind."""
        return self._newest_old_copy(records, batch) is not None

    def restore(self, records: int, batch: int) -> None:
        """Bring the newest copy back that is old enough: the server ends as in a power cut and starts on the copy."""
        copy = self._newest_old_copy(records, batch)
        assert copy is not None, "only asked for when there is one"
        self._server.kill()
        shutil.rmtree(self._server.folder / _FILES)
        shutil.copytree(copy.folder, self._server.folder / _FILES)
        self._server.start()
        self.batches_back.append((records - copy.records) // batch)

    def _newest_old_copy(self, records: int, batch: int) -> Copy | None:
        old = [copy for copy in self._taken if records - copy.records >= REFILLED_BATCHES * batch]
        return old[-1] if old else None

    def crash(self) -> None:
        """End the server as a power cut of its process does, and start it on its own folder."""
        self._server.kill()
        self._server.start()

    def lose(self) -> None:
        """End the server and start it empty."""
        self._server.kill()
        shutil.rmtree(self._server.folder / _FILES)
        self._server.start()


def _manifest(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.manifest")}
