"""The dead letters of one shop, as the command line and the API look at them: finding, showing, replaying."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import UnknownDeadLetter
from shared.events import EventSource, from_ms
from shared.ingest.dead_letters import DeadLetter, Fate, Wanted, dead_letters, replay
from shared.ingest.lake_manifest import read_manifest
from shared.ingest.partitioning import with_live
from shared.ports import BlobStore, EventLog, StateStore


@dataclass(frozen=True, slots=True)
class DeadLetterBox:
    """Where dead letters are looked for; `live` is the live stream as the settings name it."""

    blobs: BlobStore
    store: StateStore
    live: EventSource

    def letters(self, wanted: Wanted) -> list[DeadLetter]:
        """Those wanted, by coordinates.

        Raises UnknownDeadLetter when one that was named is not there, InfrastructureFault, LakeConflict.
        """
        found = dead_letters(self.blobs, self.store, self._streams(), wanted)
        missing = set(wanted.ids) - {letter.id for letter in found}
        if missing:
            raise UnknownDeadLetter(f"no such dead letter: {', '.join(str(one) for one in sorted(missing))}")
        return found

    def replay(
        self, letters: Sequence[DeadLetter], producer: EventLog, clock: Callable[[], int]
    ) -> Iterator[tuple[DeadLetter, Fate]]:
        """Publish each anew and tell what became of it; `clock` tells epoch ms. Raises as `dead_letters.replay`."""
        return replay(
            letters, blobs=self.blobs, store=self.store, streams=self._streams(), producer=producer, clock=clock
        )

    def _streams(self) -> tuple[EventSource, ...]:
        manifest = read_manifest(self.blobs)
        held = [one.event_source() for one in manifest.sources if one.kind == "live"] if manifest is not None else []
        return with_live(held, self.live)


def described(letter: DeadLetter) -> dict[str, Any]:
    """A letter as JSON values."""
    event, record = letter.event, letter.replay
    return {
        "id": str(letter.id),
        "enqueued_at": f"{from_ms(letter.row.enqueued_at):%Y-%m-%dT%H:%M:%S}Z",
        "event_id": None if event is None else event.event_id,
        "event_type": None if event is None else event.event_type.value,
        "replay": replay_state(letter),
        "reason": letter.row.reason,
        "replay_begun_at": None if record is None else record.begun_at,
        "replay_finished_at": None if record is None else record.finished_at,
        "bytes": len(letter.row.body),
    }


def replay_state(letter: DeadLetter) -> str:
    """Whether it was replayed: "-" (not yet), "not possible" (no event), "begun" or "done"."""
    if letter.replay is None:
        return "-" if letter.event is not None else "not possible"
    return "begun" if letter.replay.finished_at is None else "done"


def body_text(letter: DeadLetter) -> tuple[str, bool]:
    """Its bytes as text, and whether that is hexadecimal because they are no UTF-8."""
    body = letter.row.body
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return body.hex(), True
