"""How much a run does, all of it derived from the number of events and kills."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from shared.adapters.keys import PartitionKeys
from tests.chaos.mutants import Mutant

SOURCE = "live-1"
SECRET = "the secret of a test"
CHUNK = 100
"""Records of a commit at most; what the distance between two kills is counted in."""

SMALL_EVENTS = 20_000
TINY_EVENTS = 2000
THOROUGH_KILLS = 15
REFILLED_BATCHES = 10
"""A copy of the state that is brought back is at least so many batches old."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A run's size."""

    events: int
    kills: int

    @property
    def small(self) -> bool:
        return self.events < SMALL_EVENTS

    @property
    def thorough(self) -> bool:
        """Enough kills to reach every named point; then each must be reached."""
        return self.kills >= THOROUGH_KILLS

    @property
    def tiny(self) -> bool:
        """Just enough to find a broken processor out."""
        return self.events < TINY_EVENTS

    @property
    def partitions(self) -> int:
        return 2 if self.small else 4

    @property
    def batch(self) -> int:
        """Records the pump hands over at once, at most."""
        return 50 if self.small else 100

    @property
    def append(self) -> int:
        """Events of one append to the log."""
        return 40 if self.small else 200

    @property
    def backlog(self) -> int:
        """Events the log may be ahead of its consumers."""
        return 600 if self.small else 4000

    @property
    def restores(self) -> int:
        """How often the state comes back from a copy of its folder."""
        return 2 if self.small else 6

    @property
    def crashes(self) -> int:
        """How often the state server is killed and started on its own folder."""
        return 1 if self.small else 6

    @property
    def losses(self) -> int:
        """How often the state is lost whole and rebuilt."""
        return 0 if self.tiny else 1 if self.small else 3

    @property
    def compactions(self) -> int:
        """How often the night takes the sealed files into Parquet."""
        return 0 if self.tiny else 1 if self.small else 3

    @property
    def users(self) -> int:
        return 60 if self.small else 1500

    @property
    def items(self) -> int:
        return 80 if self.small else 1000


def keys_of(partition: int) -> PartitionKeys:
    """The keys of one partition of the run's event source."""
    return PartitionKeys(SOURCE, partition)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run keeps things: folders, and the addresses of its two servers."""

    folder: Path
    state_url: str
    log_url: str

    @property
    def lake(self) -> Path:
        return self.folder / "lake"


@dataclass(frozen=True, slots=True)
class Trial:
    """What a run is made of; `mutant` names what its consumers lack."""

    scale: Scale
    seed: int
    mutant: Mutant | None
    place: Place


def say(line: str) -> None:
    """A line of progress, not held back in a buffer that children would inherit."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
