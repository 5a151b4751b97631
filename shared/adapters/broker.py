"""Which broker log EVENT_LOG_URL names: the embedded one, a Kafka topic or an event hub; imported when asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shared.errors import ConfigurationError
from shared.ports import EventLog, RetainedLog
from shared.settings import Settings

READ_TIMEOUT_MS: Final = 5000
"""The fold may wait longer for the broker log than POST /events may."""


@dataclass(frozen=True)
class Broker:
    """Both sides of a broker log. Nothing connects before it is used.

    `prompt` is a reader that gives up as soon as `producer` does (EVENT_LOG_TIMEOUT_MS); `reader` has the fold's
    patience. `warm_up` begins to connect the producer ahead of the first event, and neither waits nor raises.
    """

    producer: EventLog
    reader: RetainedLog
    prompt: RetainedLog
    close: Callable[[], None]
    warm_up: Callable[[], None] = lambda: None


def open_broker(settings: Settings) -> Broker:
    """The broker log of these settings. Raises ConfigurationError where they do not fit together."""
    scheme = settings.event_log_url.partition("://")[0]
    if scheme in {"kafka", "kafkas"}:
        return _kafka(settings)
    if scheme in {"redis", "rediss", "unix"}:
        return _embedded(settings)
    if scheme == "eventhubs":
        return _event_hubs(settings)
    raise ConfigurationError(f"EVENT_LOG_URL starts with {scheme}://, which this version cannot use")


def _embedded(settings: Settings) -> Broker:
    from shared.adapters.redis_connection import connect  # noqa: PLC0415 - only what the address asks for is imported
    from shared.adapters.redis_log import RedisEventLog  # noqa: PLC0415 - as above

    clients = [
        connect(settings.event_log_url, timeout_ms=timeout_ms, connect_timeout_ms=settings.event_log_timeout_ms)
        for timeout_ms in (settings.event_log_timeout_ms, READ_TIMEOUT_MS)
    ]
    prompt, reader = (RedisEventLog(client, settings.event_source, settings.partition_count) for client in clients)

    def close() -> None:
        for client in clients:
            client.close()

    return Broker(prompt, reader, prompt, close)


def _kafka(settings: Settings) -> Broker:
    from shared.adapters.kafka_connection import connection_of  # noqa: PLC0415 - as above
    from shared.adapters.kafka_log import KafkaLog  # noqa: PLC0415 - as above
    from shared.adapters.kafka_producer import KafkaEventLog  # noqa: PLC0415 - as above

    connection = connection_of(settings)
    prompt_ms, count = settings.event_log_timeout_ms, settings.partition_count
    producer = KafkaEventLog(connection, count, timeout_ms=prompt_ms)
    prompt, reader = (
        KafkaLog(connection, settings.event_source, count, timeout_ms=timeout_ms)
        for timeout_ms in (prompt_ms, READ_TIMEOUT_MS)
    )

    def close() -> None:
        producer.close()
        prompt.close()
        reader.close()

    return Broker(producer, reader, prompt, close, producer.connect_ahead)


def _event_hubs(settings: Settings) -> Broker:
    from shared.adapters.event_hubs_connection import client_openers, parse_address  # noqa: PLC0415 - as above
    from shared.adapters.event_hubs_log import EventHubsEventLog  # noqa: PLC0415 - as above
    from shared.adapters.event_hubs_reader import EventHubsRetainedLog  # noqa: PLC0415 - as above

    address = parse_address(settings.event_log_url)
    open_producer, open_consumer = client_openers(address, settings.event_log_password or None)
    prompt_ms, count = settings.event_log_timeout_ms, settings.partition_count
    producer = EventHubsEventLog(open_producer, count, timeout_ms=prompt_ms, seconds=time.monotonic)
    prompt, reader = (
        EventHubsRetainedLog(
            open_consumer, settings.event_source, count, consumer_group=address.consumer_group, timeout_ms=timeout_ms
        )
        for timeout_ms in (prompt_ms, READ_TIMEOUT_MS)
    )
    return Broker(producer, reader, prompt, producer.close)
