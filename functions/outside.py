"""What a worker is connected to, and the clocks it goes by: opened once, handed to whoever is wired from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from functions.circuit import Circuit
from functions.metrics import Metrics
from shared.adapters.blob_address import open_blobs
from shared.adapters.broker import Broker, open_broker
from shared.adapters.redis_connection import connect
from shared.errors import BrokerUnavailable, StateUnavailable
from shared.events import EventSource
from shared.ingest.partitioning import live_source
from shared.ports import BlobStore
from shared.settings import Settings

FOLD_TIMEOUT_MS = 5000
"""The fold and the timers may wait longer for Redis than a page may."""


@dataclass(frozen=True)
class Outside:
    """The page's client answers requests, the fold's has the patience of a timer.

    `clock` tells epoch ms, `seconds` never goes back, and `new_id` gives 32 hexadecimal digits that never come again.
    """

    settings: Settings
    metrics: Metrics
    blobs: BlobStore
    broker: Broker
    live: EventSource
    page_client: Redis
    fold_client: Redis
    state_circuit: Circuit
    log_circuit: Circuit
    clock: Callable[[], int]
    seconds: Callable[[], float]
    new_id: Callable[[], str]


def open_outside(
    settings: Settings, clock: Callable[[], int], seconds: Callable[[], float], new_id: Callable[[], str]
) -> Outside:
    """As the settings name it; no connection is made yet. Raises ConfigurationError."""
    metrics = Metrics()
    state_circuit, log_circuit = (
        Circuit(fault, name, seconds, on_open=metrics.faults.labels(name).inc)
        for fault, name in ((StateUnavailable, "redis"), (BrokerUnavailable, "broker_log"))
    )
    return Outside(
        settings=settings,
        metrics=metrics,
        blobs=open_blobs(settings.blob_url, settings.blob_connection),
        broker=open_broker(settings),
        live=live_source(settings),
        page_client=connect(
            settings.redis_url, timeout_ms=settings.redis_timeout_ms, connect_timeout_ms=settings.redis_timeout_ms
        ),
        fold_client=connect(settings.redis_url, timeout_ms=FOLD_TIMEOUT_MS),
        state_circuit=state_circuit,
        log_circuit=log_circuit,
        clock=clock,
        seconds=seconds,
        new_id=new_id,
    )
