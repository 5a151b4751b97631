"""A real Apache Kafka broker for the session, and a fresh topic for every test."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # no __all__

from local.kafka_broker import KafkaBroker, fetch_jars
from shared.adapters.kafka_connection import KafkaAddress, KafkaConnection
from shared.errors import ConfigurationError

PARTITIONS = 2
MakeTopic = Callable[..., KafkaConnection]


@pytest.fixture(scope="session")
def session_broker() -> Iterator[KafkaBroker]:
    folder = Path(tempfile.mkdtemp(prefix="recommndr-kafka-"))
    try:
        try:
            jars = fetch_jars()
        except ConfigurationError as error:
            pytest.skip(f"no Kafka broker on this machine: {error}")
        with KafkaBroker(folder, jars) as broker:
            yield broker
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def kafka(session_broker: KafkaBroker) -> KafkaBroker:
    """The broker, running, whatever the test before did to it."""
    if not session_broker.running:
        session_broker.start()
    return session_broker


@pytest.fixture
def make_topic(kafka: KafkaBroker) -> MakeTopic:
    """Makes a topic of its own and returns the connection to it; keywords are the topic's configuration."""

    def make(partitions: int = PARTITIONS, **configuration: str) -> KafkaConnection:
        name = f"events-{uuid.uuid4().hex[:8]}"
        config = {key.replace("_", "."): value for key, value in configuration.items()}
        admin = AdminClient({"bootstrap.servers": kafka.address})
        admin.create_topics([NewTopic(name, num_partitions=partitions, config=config)])[name].result()
        return KafkaConnection(KafkaAddress(kafka.address, name))

    return make


@pytest.fixture
def connection(make_topic: MakeTopic) -> KafkaConnection:
    return make_topic()


def unsigned_token(subject: str, *, lifetime_s: float = 300.0) -> tuple[str, float]:
    """A bearer token as the broker's unsecured validator takes it, and when it expires."""
    now = time.time()
    claims = {"sub": subject, "iat": now, "exp": now + lifetime_s}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "none"}, claims)
    ]
    return f"{parts[0]}.{parts[1]}.", now + lifetime_s
