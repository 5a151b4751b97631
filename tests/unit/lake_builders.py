"""Small lakes for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.adapters.folder_blob import FolderBlobStore
from shared.events import (
    Event,
    EventSource,
    EventType,
    ItemId,
    UserId,
    encode_event,
    from_ms,
)
from shared.ingest.lake import (
    ShopSettings,
    publish_history,
    read_rows,
)
from shared.ingest.lake_table import unnumbered_table
from shared.ports import LandingRow, Verdict

DAY = 24 * 3600 * 1000
START = 1_700_006_400_000 // DAY * DAY
SHOP = ShopSettings(name="test", time_zone="Europe/London")
LIVE = EventSource("live-1", (2,))


def event(number: int, at: int, user: str = "ann", item: str = "tea") -> Event:
    return Event(
        event_id=f"e{number}", event_type=EventType.VIEW, occurred_at=from_ms(at), user_id=UserId(user),
        item_id=ItemId(item), context={"page": "home"},
    )  # fmt: skip


def row(sequence: int, at: int | None = None, partition: int = 0, **changed: Any) -> LandingRow:
    at = START + sequence * 1000 if at is None else at
    values: dict[str, Any] = {
        "source": "live-1", "partition": partition, "sequence": sequence, "enqueued_at": at,
        "verdict": Verdict.ACCEPTED, "body": encode_event(event(sequence, at)),
    }  # fmt: skip
    return LandingRow(**(values | changed))


def skipped(first: int, last: int, at: int) -> LandingRow:
    return row(first, at, verdict=Verdict.SKIPPED, body=b"", last_sequence=last, reason="gone from the broker log")


def history(blobs: FolderBlobStore, name: str = "history-a", count: int = 60) -> list[Event]:
    events = [event(number, START + number * DAY // 20, f"user{number % 7}") for number in range(count)]
    publish_history(blobs, name, 4, SHOP, [unnumbered_table(events)], 3)
    return events


def coordinates(blobs: FolderBlobStore, **options: Any) -> list[tuple[str, int, int]]:
    table = read_rows(blobs, **options)
    return [tuple(found.values()) for found in table.select(["source", "partition", "sequence"]).to_pylist()]


class Watched(FolderBlobStore):
    """Counts what it is asked for and stops dead before the n-th change."""

    def __init__(self, root: Path, changes_left: int = 10**9) -> None:
        super().__init__(root)
        self.changes_left = changes_left
        self.was_read: list[str] = []

    def read(self, name: str) -> bytes:
        self.was_read.append(name)
        return super().read(name)

    def write(self, name: str, data: bytes) -> None:
        self._change()
        super().write(name, data)

    def delete(self, name: str) -> None:
        self._change()
        super().delete(name)

    def _change(self) -> None:
        if self.changes_left == 0:
            raise KeyboardInterrupt
        self.changes_left -= 1
