"""What `local.serve --broker` asks of Kafka: the settings that name a topic, and the topic itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from shared.adapters.kafka_connection import (
    SCHEMES,
    KafkaConnection,
    TopicMissing,
    check_topic,
    create_topic,
)
from shared.errors import ConfigurationError

DEFAULT_TOPIC: Final = "events"
ASK_TIMEOUT_S: Final = 5.0


def kafka_environment(broker: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that name the topic. Raises ConfigurationError when `broker` is no kafka://host:port[/topic].

    The event source is named for the topic unless EVENT_SOURCE is set: its offsets are not those of the embedded log
    that a shop's folder may have been served with before.
    """
    scheme, separator, rest = broker.partition("://")
    if f"{scheme}{separator}" not in SCHEMES:
        raise ConfigurationError(f"--broker takes kafka://host:port[/topic] (kafkas:// over TLS), not {scheme[:20]!r}")
    hosts, _, topic = rest.partition("/")
    topic = topic or DEFAULT_TOPIC
    source = re.sub(r"[^a-z0-9]+", "-", f"kafka-{topic.lower()}").rstrip("-")[:63]
    return {
        "EVENT_LOG_URL": f"{scheme}://{hosts}/{topic}",
        "EVENT_SOURCE": environ.get("EVENT_SOURCE") or source,
    }


def make_topic_ready(connection: KafkaConnection, partition_count: int) -> bool:
    """See that the topic is as it must be, made where it is missing; whether it was made.

    Raises:
        BrokerUnavailable: the broker does not answer, lets us make no topic, or the topic has another number of
            partitions or another clock; the message names the command.
    """
    try:
        check_topic(connection, partition_count, timeout_s=ASK_TIMEOUT_S)
    except TopicMissing:
        create_topic(connection, partition_count, timeout_s=ASK_TIMEOUT_S)
        return True
    return False
