"""A lake replayed to a real Kafka broker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from local.replay import main
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.kafka_connection import KafkaConnection
from shared.adapters.kafka_log import KafkaLog
from shared.events import decode_event, partition_of
from tests.unit.lake_builders import history

pytestmark = pytest.mark.xdist_group("kafka")
PARTITIONS = 2
MakeTopic = Callable[..., KafkaConnection]


def test_a_lake_is_replayed_to_a_topic_in_order(make_topic: MakeTopic, tmp_path: Path) -> None:
    events = history(FolderBlobStore(tmp_path), count=600)
    connection = make_topic(message_timestamp_type="LogAppendTime")
    url = f"kafka://{connection.address.brokers}/{connection.address.topic}"
    told = ["--lake", str(tmp_path), "--to", url, "--partitions", str(PARTITIONS), "--progress", str(tmp_path / "p")]
    assert main([*told, "--speed", "max"]) == 0
    with closing(KafkaLog(connection, "live-1", PARTITIONS, timeout_ms=10_000)) as reader:
        for number in range(PARTITIONS):
            found = [decode_event(record.body) for record in reader.read(number, -1, 1000)]
            assert found == [one for one in events if partition_of(one.partition_key, PARTITIONS) == number]
