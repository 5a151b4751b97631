"""How far an erasure has come: looked at where it can be, told from the receipt where the night does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from shared.adapters.redis_overlay import RedisOverlays
from shared.adapters.redis_releases import RedisReleaseStore
from shared.errors import CorruptRecord, StateUnavailable
from shared.ingest.chunks import end_of
from shared.ingest.ended_log import read_user
from shared.ingest.erasures import MINUTE_MS, ErasurePlace, Receipt, StoreLine
from shared.ingest.fold_chunk import AnyVersion
from shared.ports import Mark, StateStore

BY_TIME: Final = ("worker_memory", "event_id_ring")
"""These are done when their time has come."""

_CLOCKS_DIFFER_MS: Final = MINUTE_MS


@dataclass(frozen=True, slots=True)
class PlaceLook:
    """One partition: its log's mark, and whether every state version there has its tombstone or nothing of her."""

    mark: Mark | None
    erased: bool


class ErasureStatus:
    """Looks at single keys only, however many users there are."""

    def __init__(
        self,
        *,
        live_source: str,
        store: StateStore,
        overlays: RedisOverlays,
        lists: RedisReleaseStore,
        versions: Callable[[], Sequence[AnyVersion]],
        clock: Callable[[], int],
    ) -> None:
        """`versions` are the state versions that are folded now; `clock` tells epoch ms."""
        self._live_source = live_source
        self._store = store
        self._overlays = overlays
        self._lists = lists
        self._versions = versions
        self._clock = clock

    def of(self, receipt: Receipt) -> Receipt:
        """The receipt as it stands now; nothing is written. Raises StateUnavailable, InfrastructureFault."""
        now, stores = self._clock(), dict(receipt.stores)
        for name, is_done in self._looks(receipt, now).items():
            line = stores[name]
            if is_done and line.done_at is None:
                stores[name] = StoreLine(detail=line.detail, done_at=line.due_at if name in BY_TIME else now)
        return replace(receipt, stores=stores)

    def now(self, receipt: Receipt) -> Receipt:
        """As `of`, for who asks through the API. Raises StateUnavailable, also for what cannot be decoded."""
        try:
            return self.of(receipt)
        except CorruptRecord as error:
            raise StateUnavailable(f"what is stored of this user cannot be read: {error}") from error

    def place(self, receipt: Receipt, place: ErasurePlace) -> PlaceLook:
        """One partition; those of the live stream have a record of the erasure each, so a tombstone.

        Raises StateUnavailable.
        """
        versions = self._versions()
        state, shards = read_user(self._store, place.source, place.partition, versions, receipt)
        erased = all(shard.erased_at >= receipt.erased_at for shard in shards.values())
        if place.source == self._live_source:
            folded = [one.name for one in versions if state.versions[one.name].mark is not None]
            erased = erased and bool(folded) and all(name in shards for name in folded)
        return PlaceLook(state.log_mark, erased)

    def _looks(self, receipt: Receipt, now: int) -> dict[str, bool]:
        swept = receipt.swept_at is not None
        state = all(self.place(receipt, place).erased for place in receipt.places)
        overlay = self._overlays.read(receipt.subject).erased_at
        looks = {
            "state": state and swept,
            "overlay": overlay is not None and overlay >= receipt.erased_at,
            "nightly_record": swept and not self._has_record(receipt),
            "landing": state and all(self._landing_is_past(place) for place in receipt.places),
        }
        for name in BY_TIME:
            due_at = receipt.stores[name].due_at
            looks[name] = due_at is not None and due_at <= now
        return looks

    def _has_record(self, receipt: Receipt) -> bool:
        allocation = self._lists.allocation()
        releases = [] if allocation is None else [name for name, _ in allocation.releases]
        key = bytes.fromhex(receipt.user_key)
        return any(
            record is not None
            for release_id in dict.fromkeys([*releases, *self._lists.published()])
            for record in self._lists.nightly_records(release_id, [key])
        )

    def _landing_is_past(self, place: ErasurePlace) -> bool:
        """Is what the partition took before the erasure sealed by now?"""
        rows = self._store.oldest_landing_rows(place.source, place.partition, 1)
        if not rows:
            return True
        if place.sequence is not None:
            return end_of(rows[0]) >= place.sequence
        taken_at = place.acknowledged_at
        return taken_at is None or rows[0].enqueued_at > taken_at + _CLOCKS_DIFFER_MS
