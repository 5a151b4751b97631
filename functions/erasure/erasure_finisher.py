"""Finishing what erasures began: each minute, until nothing of any receipt is left to be done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from functions.erasure.erasure_publisher import ErasurePublisher, acknowledge
from functions.erasure.erasure_status import ErasureStatus
from shared.adapters.redis_overlay import RedisOverlays
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_versions import StateVersions
from shared.errors import BrokerUnavailable, LakeConflict, RecommndrError
from shared.ingest.ended_log import append_to_ended
from shared.ingest.erasures import (
    HOUR_MS,
    MINUTE_MS,
    OPEN_FOLDER,
    Receipt,
    StoreLine,
    change_receipt,
    close_receipt,
    open_receipts,
    read_receipt,
    withdraw_receipt,
)
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake import read_manifest
from shared.ingest.processor import OnBroken
from shared.ports import BlobStore, RetainedLog, StateStore

log = logging.getLogger(__name__)

LOOK_AGAIN_MS: Final = HOUR_MS
"""Once a user's state is gone, only a backfill or a night that began before could bring something back."""
MOST_RECEIPTS: Final = 300
"""Of one run, which sealing waits for: those that waited longest, a new one first."""
BEING_MADE_MS: Final = MINUTE_MS
"""So long a receipt that nothing acknowledged is left to the request that opened it."""
QUICK: Final = ("state", "nightly_record", "landing")
"""These are done within minutes, so a receipt is looked at again and again until they are; ever more seldom, though."""
LOST_MS: Final = 10 * MINUTE_MS
"""An erasure that a partition took and passed by so long ago became no tombstone: a dead letter, an older fold."""


@dataclass(frozen=True, slots=True)
class _Everywhere:
    """State versions that nobody folds and all releases with lists, as a look at every key found them."""

    versions: Sequence[str]
    releases: Sequence[str]


class ErasureFinisher:
    """Runs where the timers run, one at a time; several do each other no harm."""

    def __init__(
        self,
        *,
        publisher: ErasurePublisher,
        status: ErasureStatus,
        blobs: BlobStore,
        store: StateStore,
        overlays: RedisOverlays,
        lists: RedisReleaseStore,
        states: StateVersions,
        broker: RetainedLog,
        versions: Callable[[], Sequence[AnyVersion]],
        on_broken: OnBroken,
        clock: Callable[[], int],
    ) -> None:
        """`versions` are the state versions that are folded now; `clock` tells epoch ms."""
        self._publisher = publisher
        self._status = status
        self._blobs = blobs
        self._store = store
        self._overlays = overlays
        self._lists = lists
        self._states = states
        self._broker = broker
        self._versions = versions
        self._on_broken = on_broken
        self._clock = clock
        self._next_look: dict[str, int] = {}

    def run(self) -> int:
        """Do what can be done of every open receipt and return how many stay open.

        One that cannot go on is no reason to leave the others; what the first such one raised is raised at the end.
        """
        names, now = open_receipts(self._blobs), self._clock()
        self._next_look = {name: self._next_look.get(name, 0) for name in names}
        due = sorted((name for name, at in self._next_look.items() if at <= now), key=self._next_look.__getitem__)
        left, faults = len(names), list[RecommndrError]()
        everywhere: _Everywhere | None = None
        for name in due[:MOST_RECEIPTS]:
            try:
                receipt = self._read(name, now)
                if receipt is not None:
                    receipt = self._publish(receipt)
                    everywhere = everywhere or self._look_everywhere()
                    left -= self._finish(receipt, everywhere)
            except RecommndrError as error:
                log.warning("erasure %s is not finished: %s", name, error)
                faults.append(error)
        if faults:
            raise faults[0]
        return left

    def _read(self, name: str, now: int) -> Receipt | None:
        receipt = read_receipt(self._blobs, name)
        if receipt is None:
            if now - int(self._blobs.read(OPEN_FOLDER + name) or b"0") > BEING_MADE_MS:
                withdraw_receipt(self._blobs, name)  # whoever was opening it ended there: nothing was promised
            return None
        nobody = all(place.acknowledged_at is None for place in receipt.places)
        return None if nobody and now - receipt.requested_at < BEING_MADE_MS else receipt

    def _finish(self, receipt: Receipt, everywhere: _Everywhere) -> bool:
        """Whether nothing is left to be done."""
        key = bytes.fromhex(receipt.user_key)
        places = [(one.source, one.partition) for one in receipt.places]
        self._overlays.erase(receipt.subject, receipt.erased_at)
        receipt = self._append_to_ended(receipt)
        self._states.forget_user(everywhere.versions, places, key, receipt.erased_at)
        self._lists.forget_user(key, everywhere.releases)
        receipt = self._write_down(receipt)
        if all(line.done_at is not None for line in receipt.stores.values()):
            close_receipt(self._blobs, receipt.receipt)
            return True
        now = self._clock()
        overdue = [name for name, line in receipt.stores.items() if line.done_at is None and (line.due_at or now) < now]
        if overdue:
            log.error("ALARM erasure %s is overdue in %s", receipt.receipt, ", ".join(overdue))
        if not self._publisher.missing(receipt):
            is_quick = any(receipt.stores[name].done_at is None for name in QUICK)
            pause_ms = (now - receipt.requested_at) // 10 if is_quick else LOOK_AGAIN_MS
            self._next_look[receipt.receipt] = now + min(pause_ms, LOOK_AGAIN_MS)
        return False

    def _publish(self, receipt: Receipt) -> Receipt:
        """Send it where the broker log never acknowledged it, and again where it was taken and came to nothing."""
        wanted = self._publisher.missing(receipt)
        for place in receipt.places:
            if self._publisher.takes(place) and place.acknowledged_at is not None:
                look = self._status.place(receipt, place)
                passed_at = -1 if look.mark is None else look.mark.enqueued_at
                if not look.erased and passed_at > place.acknowledged_at + LOST_MS:
                    log.error(
                        "ALARM %s/%d passed erasure %s by; it is sent again",
                        place.source, place.partition, receipt.receipt,
                    )  # fmt: skip
                    wanted.append(place)
        return self._publisher.publish(receipt, wanted) if wanted else receipt

    def _append_to_ended(self, receipt: Receipt) -> Receipt:
        """Ingested history and earlier streams; one that the lake does not name any more is about to expire."""
        manifest = read_manifest(self._blobs)
        named = {one.name for one in manifest.sources} if manifest is not None else set()
        told = []
        for place in receipt.places:
            if self._publisher.takes(place) or place.source not in named:
                continue
            sequence = append_to_ended(
                receipt,
                place.source,
                place.partition,
                store=self._store,
                versions=self._versions(),
                blobs=self._blobs,
                on_broken=self._on_broken,
            )
            if place.acknowledged_at is None or sequence != place.sequence:
                told.append(replace(place, acknowledged_at=self._clock(), sequence=sequence))
        return acknowledge(self._blobs, receipt, told) if told else receipt

    def _look_everywhere(self) -> _Everywhere:
        folded = {one.name for one in self._versions()}
        stale = [name for name in self._states.stored() if name not in folded]
        return _Everywhere(stale, list(self._lists.with_lists()))

    def _write_down(self, receipt: Receipt) -> Receipt:
        now = self._clock()
        seen = self._status.of(replace(receipt, swept_at=receipt.swept_at or now))
        done = {name: line for name, line in seen.stores.items() if line.done_at is not None}
        if self._broker_has_forgotten(receipt, now):
            done["broker_log"] = StoreLine(detail=receipt.stores["broker_log"].detail, done_at=now)

        def change(held: Receipt) -> Receipt:
            stores = {
                name: line if line.done_at is not None else done.get(name, line) for name, line in held.stores.items()
            }
            return replace(held, stores=stores, swept_at=held.swept_at or now)

        changed = change_receipt(self._blobs, receipt.receipt, change)
        if changed is None:
            raise LakeConflict(f"the receipt {receipt.receipt} is gone: somebody withdrew it")
        return changed

    def _broker_has_forgotten(self, receipt: Receipt, now: int) -> bool:
        """The log's own word where it tells sequences; elsewhere the longest time that a hub keeps records."""
        line = receipt.stores["broker_log"]
        places = [one for one in receipt.places if self._publisher.takes(one)]
        told = [(one.partition, one.sequence) for one in places if one.sequence is not None]
        if line.done_at is None and len(told) == len(places):
            try:
                return all(self._broker.first_sequence(partition) > sequence for partition, sequence in told)
            except BrokerUnavailable as error:
                log.info("whether the broker log has forgotten a user will be asked again: %s", error)
                return False
        return line.due_at is not None and line.due_at <= now
