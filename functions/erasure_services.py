"""Wiring of what erases users: begun by a request, looked at by whoever holds the receipt, finished by a timer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis import Redis

from functions.circuit import Circuit
from functions.erasure_finisher import ErasureFinisher
from functions.erasure_publisher import ErasurePublisher
from functions.erasure_status import ErasureStatus
from functions.preference_keeper import PreferenceKeeper
from functions.user_eraser import UserEraser
from functions.version_keeper import VersionKeeper
from shared.adapters.broker import Broker
from shared.adapters.redis_overlay import RedisOverlays
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.redis_versions import StateVersions
from shared.events import EventSource
from shared.ingest.erasures import Receipt, read_receipt
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.processor import OnBroken
from shared.ports import BlobStore

RECEIPT_BYTES = 16


@dataclass(frozen=True)
class Erasures:
    """`eraser` and `receipt` are the API's, `finisher` the timer's."""

    eraser: UserEraser
    finisher: ErasureFinisher
    receipt: Callable[[str], Receipt | None]


def open_erasures(
    *,
    live: EventSource,
    blobs: BlobStore,
    broker: Broker,
    page_client: Redis,
    fold_client: Redis,
    keeper: PreferenceKeeper,
    versions: VersionKeeper,
    on_broken: OnBroken,
    state_circuit: Circuit,
    log_circuit: Circuit,
    user_secret: str,
    clock: Callable[[], int],
) -> Erasures:
    """The page's client answers requests, the fold's has the patience of a timer."""

    def folded() -> Sequence[AnyVersion]:
        if versions.needed is None:
            versions.refresh()
        assert versions.needed is not None, "refresh raises or sets it"
        return [one for one in versions.needed.fold if one.name not in versions.broken]

    def status_over(client: Redis) -> ErasureStatus:
        return ErasureStatus(
            live_source=live.name,
            store=RedisStateStore(client, user_secret),
            overlays=RedisOverlays(client, user_secret),
            lists=RedisReleaseStore(client),
            versions=folded,
            clock=clock,
        )

    prompt = status_over(page_client)

    def receipt(receipt_id: str) -> Receipt | None:
        held = read_receipt(blobs, receipt_id)
        return None if held is None else state_circuit.call(lambda: prompt.now(held))

    publisher = ErasurePublisher(live, broker.producer, log_circuit, blobs, clock)
    return Erasures(
        eraser=UserEraser(
            live=live,
            blobs=blobs,
            publisher=publisher,
            keeper=keeper,
            lists=RedisReleaseStore(page_client),
            state_circuit=state_circuit,
            user_secret=user_secret,
            clock=clock,
            new_receipt_id=lambda: secrets.token_hex(RECEIPT_BYTES),
        ),
        finisher=ErasureFinisher(
            publisher=publisher,
            status=status_over(fold_client),
            blobs=blobs,
            store=RedisStateStore(fold_client, user_secret),
            overlays=RedisOverlays(fold_client, user_secret),
            lists=RedisReleaseStore(fold_client),
            states=StateVersions(fold_client),
            broker=broker.reader,
            versions=folded,
            on_broken=on_broken,
            clock=clock,
        ),
        receipt=receipt,
    )
