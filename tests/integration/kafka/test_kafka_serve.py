"""local.serve over a real topic, as a process: a click moves a page, the broker goes and comes back, all ends well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.embedded import EmbeddedServers
from local.instance_lock import read_serving
from local.kafka_broker import KafkaBroker
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.kafka_connection import open_connection
from shared.adapters.kafka_log import KafkaLog
from shared.adapters.kafka_producer import KafkaEventLog
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.errors import BrokerUnavailable
from shared.events import partition_of
from shared.ingest.recorded_log import RecordedLog
from shared.settings import SECRET_DEFAULT
from tests.integration.api_shop import behaviour, indexes, neighbours, open_shop

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.timeout(300)]  # a broker starts twice, a server once
PATIENCE_S = 60.0
PARTITIONS = 4
CLICKED = 100
LOG_NAME = "serve.log"
ALONE = {name: text for name, text in os.environ.items() if not name.startswith(("REDIS_URL", "EVENT_"))}


@pytest.fixture
def stocked(tmp_path: Path) -> Path:
    """A shop's folder with a release, made over the embedded log."""
    with (
        EmbeddedServers(tmp_path) as servers,
        open_shop(servers.state_url, servers.log_url, tmp_path, USER_KEY_SECRET=SECRET_DEFAULT),
    ):
        return tmp_path


@contextmanager
def served(data: Path, broker: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    command = [sys.executable, "-m", "local.serve", "--data", str(data), "--port", "0", "--broker", broker]
    environment = ALONE | {"ITEM_POLL_MS": "50", "EVENT_LOG_TIMEOUT_MS": "2000"}
    with (data / LOG_NAME).open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        address = wait_for_address(process, data)
        with httpx.Client(base_url=address, timeout=20) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def wait_for_address(process: subprocess.Popen[bytes], data: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        serving = read_serving(data)
        if serving is not None and serving.address:
            return serving.address
        assert process.poll() is None, (data / LOG_NAME).read_text()
        time.sleep(0.05)
    pytest.fail("the server did not announce its address")


def eventually(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def page(client: httpx.Client, user: str) -> Any:
    answer = client.get(f"/recommend/{user}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(client: httpx.Client, *events: dict[str, Any]) -> httpx.Response:
    return client.post("/events", content=json.dumps(events))


def test_a_shop_over_kafka_reacts_to_clicks_outlives_its_broker_and_ends_cleanly(
    stocked: Path, kafka: KafkaBroker
) -> None:
    topic = f"shop-{os.getpid()}-{time.monotonic_ns()}"
    url = f"kafka://{kafka.address}/{topic}"
    source = f"kafka-{topic}"
    with served(stocked, url) as (process, client):
        assert page(client, "ada")["fallback"] == {"cause": "new_user"}
        events = [behaviour("ada", CLICKED), behaviour("ben", 20), behaviour("cleo", 40)]
        assert post(client, *events).json()["accepted"] == 3
        eventually(lambda: page(client, "ada")["fallback"] is None)
        assert set(indexes(page(client, "ada"))) & set(neighbours(CLICKED))
        assert {check["name"]: check["ok"] for check in client.get("/health/ready").json()["checks"]}["broker_log"]

        connection = open_connection(url)
        with (
            closing(KafkaLog(connection, source, PARTITIONS, timeout_ms=1000)) as log,
            closing(KafkaEventLog(connection, PARTITIONS, timeout_ms=1000)) as producer,
        ):
            part = partition_of("ada", PARTITIONS)
            held = log.read(part, -1, 100)
            assert held
            producer.connect_ahead()
            kafka.kill()
            answer = post(client, behaviour("ada", 60))
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert page(client, "ada")["fallback"] is None
            for ask in (
                lambda: producer.append([("ada", b"while away")]),
                lambda: log.read(part, -1, 100),
                lambda: log.last_sequence(part),
            ):
                with pytest.raises(BrokerUnavailable):
                    ask()
            kafka.start()
            again = behaviour("dora", 160)
            eventually(lambda: post(client, again).status_code == 202)
            eventually(lambda: page(client, "dora")["fallback"] is None)
            assert set(indexes(page(client, "dora"))) & set(neighbours(160))
            assert eventually(lambda: readable(log, part))[: len(held)] == held, "what was acknowledged is still there"
            process.send_signal(signal.SIGTERM)
            ended = process.wait(60)
            output = (stocked / LOG_NAME).read_text()
            assert ended == 0, output
            assert f"made the topic {topic} of 4 partitions" in output
            assert source in output
            assert not (stocked / "log" / "server.pid").exists(), "no embedded log runs beside a Kafka topic"
            with EmbeddedServers(stocked) as servers, connect(servers.state_url) as state:
                store = RedisStateStore(state, SECRET_DEFAULT)
                for partition in range(PARTITIONS):
                    last = log.last_sequence(partition)
                    recorded = RecordedLog(source, partition, store, FolderBlobStore(stocked))
                    rows = recorded.rows(0, 1000)
                    assert [row.sequence for row in rows] == list(range(0 if last is None else last + 1))
                    assert [row.body for row in rows] == [one.body for one in log.read(partition, -1, 1000)]


def readable(log: KafkaLog, partition: int) -> Any:
    try:
        return log.read(partition, -1, 100)
    except BrokerUnavailable:
        return None


def test_what_cannot_be_served_over_is_said_before_anything_starts(tmp_path: Path, kafka: KafkaBroker) -> None:
    def refused(broker: str, **environment: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "local.serve", "--data", str(tmp_path), "--port", "0", "--broker", broker],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=ALONE | environment,
        )
        assert ended.returncode == 2, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stderr

    assert "kafka://host:port" in refused("redis://localhost:6379")
    sasl = {"EVENT_LOG_SASL": "plain", "EVENT_LOG_USER": "ann", "EVENT_LOG_PASSWORD": "guessed"}
    told = refused(f"kafka://{kafka.sasl_address}", **sasl)
    assert "Authentication failed" in told
    assert "guessed" not in told
