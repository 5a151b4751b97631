"""Dead letters as an operator sees and replays them: the same core as `python -m local.dead_letters`.

The lake is read with Arrow, which is imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import BrokerUnavailable
from shared.events import EventSource
from shared.ports import BlobStore, EventLog, StateStore

if TYPE_CHECKING:
    from shared.ingest.dead_letter_box import DeadLetterBox
    from shared.ingest.dead_letters import DeadLetter, Fate, LetterId


@dataclass(frozen=True, slots=True)
class Asked:
    """Which letters; every condition that is given must hold. `since` is an enqueued_at in epoch ms."""

    ids: Collection[str] = ()
    source: str | None = None
    partition: int | None = None
    reason: str | None = None
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of each letter in turn; `fault` is why the broker log ended it, if it did."""

    fates: tuple[tuple[DeadLetter, Fate], ...]
    fault: str | None


class DeadLetterDesk:
    """Finds and replays; `clock` tells epoch ms."""

    def __init__(
        self, blobs: BlobStore, store: StateStore, live: EventSource, producer: EventLog, clock: Callable[[], int]
    ) -> None:
        self._blobs = blobs
        self._store = store
        self._live = live
        self._producer = producer
        self._clock = clock

    def letters(self, asked: Asked) -> list[DeadLetter]:
        """By coordinates. Raises UnknownDeadLetter, ConfigurationError for an id that is none, InfrastructureFault."""
        from shared.ingest.dead_letters import LetterId, Wanted  # noqa: PLC0415 - Arrow takes 0.2 s to import

        ids: frozenset[LetterId] = frozenset(LetterId.parse(one) for one in asked.ids)
        return self._box().letters(Wanted(ids, asked.source, asked.partition, asked.reason, asked.since))

    def replay(self, letters: Collection[DeadLetter]) -> Replayed:
        """Publish each anew under its own event id. Raises InfrastructureFault, LakeConflict before the first."""
        fates: list[tuple[DeadLetter, Fate]] = []
        try:
            fates.extend(self._box().replay(list(letters), self._producer, self._clock))
        except BrokerUnavailable as error:
            return Replayed(tuple(fates), str(error))
        return Replayed(tuple(fates), None)

    def _box(self) -> DeadLetterBox:
        from shared.ingest.dead_letter_box import DeadLetterBox  # noqa: PLC0415 - Arrow takes 0.2 s to import

        return DeadLetterBox(self._blobs, self._store, self._live)
