"""Wiring of what erases users: begun by a request, looked at by whoever holds the receipt, finished by a timer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis import Redis

from functions.erasure.erasure_finisher import ErasureFinisher
from functions.erasure.erasure_publisher import ErasurePublisher
from functions.erasure.erasure_status import ErasureStatus
from functions.erasure.user_eraser import UserEraser
from functions.folding import Folding
from functions.outside import Outside
from functions.preferences.preference_keeper import PreferenceKeeper
from shared.adapters.redis_overlay import RedisOverlays
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.redis_versions import StateVersions
from shared.ingest.erasures import Receipt, read_receipt
from shared.ingest.fold_chunk import AnyVersion

RECEIPT_BYTES = 16


@dataclass(frozen=True)
class Erasures:
    """`eraser` and `receipt` are the API's, `finisher` the timer's."""

    eraser: UserEraser
    finisher: ErasureFinisher
    receipt: Callable[[str], Receipt | None]


def open_erasures(outside: Outside, keeper: PreferenceKeeper, folding: Folding) -> Erasures:
    """Requests go over the page's client, the timer over the fold's."""
    blobs, clock, versions = outside.blobs, outside.clock, folding.versions
    page_client, fold_client, user_secret = outside.page_client, outside.fold_client, outside.settings.user_key_secret

    def folded() -> Sequence[AnyVersion]:
        if versions.needed is None:
            versions.refresh()
        assert versions.needed is not None, "refresh raises or sets it"
        return [one for one in versions.needed.fold if one.name not in versions.broken]

    def status_over(client: Redis) -> ErasureStatus:
        return ErasureStatus(
            live_source=outside.live.name,
            store=RedisStateStore(client, user_secret),
            overlays=RedisOverlays(client, user_secret),
            lists=RedisReleaseStore(client),
            versions=folded,
            clock=clock,
        )

    prompt = status_over(page_client)

    def receipt(receipt_id: str) -> Receipt | None:
        held = read_receipt(blobs, receipt_id)
        return None if held is None else outside.state_circuit.call(lambda: prompt.now(held))

    publisher = ErasurePublisher(outside.live, outside.broker.producer, outside.log_circuit, blobs, clock)
    return Erasures(
        eraser=UserEraser(
            live=outside.live,
            blobs=blobs,
            publisher=publisher,
            keeper=keeper,
            lists=RedisReleaseStore(page_client),
            state_circuit=outside.state_circuit,
            user_secret=user_secret,
            clock=clock,
            new_receipt_id=lambda: secrets.token_hex(RECEIPT_BYTES),
        ),
        finisher=ErasureFinisher(
            publisher=publisher,
            status=status_over(fold_client),
            blobs=blobs,
            store=folding.store,
            overlays=RedisOverlays(fold_client, user_secret),
            lists=RedisReleaseStore(fold_client),
            states=StateVersions(fold_client),
            broker=outside.broker.reader,
            versions=folded,
            on_broken=folding.on_broken,
            clock=clock,
        ),
        receipt=receipt,
    )
