"""DELETE /user_profile/{user_id} without HTTP: a receipt, the erasure in the broker log, and no page knows her."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from functions.circuit import Circuit
from functions.erasure.erasure_publisher import ErasurePublisher, NothingSent
from functions.preferences.preference_keeper import PreferenceKeeper
from shared.adapters.keys import user_key
from shared.adapters.redis_releases import RedisReleaseStore
from shared.errors import BrokerUnavailable, InfrastructureFault, LakeConflict
from shared.events import EventSource
from shared.features.overlay import Overlay
from shared.ingest.erasures import ErasurePlace, Receipt, new_receipt, open_receipt
from shared.ingest.lake import read_manifest
from shared.ingest.partitioning import with_live
from shared.ports import BlobStore

log = logging.getLogger(__name__)

NOT_EVERYWHERE: Final = (
    "the broker log has not acknowledged the erasure in every partition yet; it is sent again each minute until it has"
)


class Unacknowledged(BrokerUnavailable):
    """The broker log has not taken the erasure everywhere; it is finished in the background, under this receipt."""

    def __init__(self, message: str, receipt: Receipt) -> None:
        super().__init__(message)
        self.receipt = receipt


class UserEraser:
    """Says the same of whoever is named, known or not."""

    def __init__(
        self,
        *,
        live: EventSource,
        blobs: BlobStore,
        publisher: ErasurePublisher,
        keeper: PreferenceKeeper,
        lists: RedisReleaseStore,
        state_circuit: Circuit,
        user_secret: str,
        clock: Callable[[], int],
        new_receipt_id: Callable[[], str],
    ) -> None:
        """`clock` tells epoch ms; `new_receipt_id` gives 128 random bits as 32 hexadecimal digits."""
        self._live = live
        self._blobs = blobs
        self._publisher = publisher
        self._keeper = keeper
        self._lists = lists
        self._state_circuit = state_circuit
        self._secret = user_secret
        self._clock = clock
        self._new_receipt_id = new_receipt_id

    def erase(self, user_id: str) -> Receipt:
        """Begin to forget a user; what is left to do is done in the background, whatever becomes of this process.

        When it returns, no page of any worker uses anything of her; where Redis is away, as soon as it answers.

        Raises:
            Unacknowledged: the broker log took it in some partitions only, or may have; it will be in all of them.
            BrokerUnavailable: the broker log took nothing: nothing was begun.
            InfrastructureFault: the blob store does not answer: nothing that shows was begun.
        """
        erased_at = self._clock()
        key = user_key(user_id, self._secret)
        opened = new_receipt(self._new_receipt_id(), key.hex(), erased_at, self._places(user_id))
        open_receipt(self._blobs, opened)
        try:
            receipt = self._publisher.publish_new(opened)
        except NothingSent:
            raise
        except (InfrastructureFault, LakeConflict) as error:
            raise Unacknowledged(f"{NOT_EVERYWHERE} ({error})", opened) from error
        self._keeper.acknowledged(user_id, Overlay(erased_at=erased_at))
        self._forget_record(key)
        if self._publisher.missing(receipt):
            raise Unacknowledged(NOT_EVERYWHERE, receipt)
        return receipt

    def _places(self, user_id: str) -> tuple[ErasurePlace, ...]:
        """Every partition of every source the lake knows that may hold her, and of the live one."""
        manifest = read_manifest(self._blobs)
        held = () if manifest is None else [one.event_source() for one in manifest.sources]
        return tuple(
            ErasurePlace(source=source.name, partition=partition)
            for source in with_live(held, self._live)
            for partition in source.partitions_of(user_id)
        )

    def _forget_record(self, key: bytes) -> None:
        """Of the releases that serve or did; it could not be used any more, and all others are looked through later."""
        try:
            self._state_circuit.call(lambda: self._lists.forget_user(key, self._published()))
        except InfrastructureFault as error:
            log.info("a nightly record waits to be removed: %s", error)

    def _published(self) -> list[str]:
        allocation = self._lists.allocation()
        allocated = [] if allocation is None else [name for name, _ in allocation.releases]
        return list(dict.fromkeys([*allocated, *self._lists.published()]))
