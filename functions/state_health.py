"""How the state versions stand that the event fold keeps, in words for readiness."""

from __future__ import annotations

from functions.version_keeper import VersionKeeper
from shared.adapters.redis_versions import PartitionMarks, StateVersions
from shared.events import EventSource
from shared.ingest.marks import BACKFILL

CLEAR = "python -m local.state_versions clear"


class StateHealth:
    """One look at the marks of every version in use."""

    def __init__(self, keeper: VersionKeeper, states: StateVersions, live: EventSource) -> None:
        self._keeper = keeper
        self._states = states
        self._live = live

    def look(self) -> tuple[bool, str]:
        """Whether every version that a release with traffic needs is folded, and what is to be said of all of them.

        Raises InfrastructureFault.
        """
        needed = self._keeper.needed
        if needed is None:  # asking for it here would wait as patiently as the fold does
            return False, "what is published was not read yet"
        names = [version.name for version in needed.fold]
        marks = self._states.marks(self._live, names)
        troubles: dict[str, str] = {}
        for name in names:
            if name in self._keeper.broken:
                troubles[name] = (
                    f"state version {name} is broken ({self._keeper.broken[name]}): deploy code that can fold it, then "
                    f"{CLEAR} {name}, then {BACKFILL}"
                )
            elif waiting := _waiting(name, marks):
                parts = ", ".join(f"{self._live.name}/{partition}" for partition in waiting)
                troubles[name] = f"state version {name} waits for its backfill in {parts}: {BACKFILL}"
        said = [*troubles.values(), *(f"{release}: {reason}" for release, reason in needed.beyond.items())]
        unfolded = needed.allocated - {name for name in names if name not in troubles}
        return not unfolded, "; ".join(said) or f"folded: {', '.join(names)}"


def _waiting(version: str, marks: list[PartitionMarks]) -> list[int]:
    return [partition for partition, held in enumerate(marks) if held.log is not None and version not in held.versions]
