"""The clients: put the workload into the broker log through its real adapter, at the workload's own instants."""

from __future__ import annotations

from redis import Redis

from shared.adapters.redis_log import RedisEventLog
from shared.events import partition_of
from shared.ports import LogRecord
from tests.chaos.scale import SOURCE, Scale, keys_of
from tests.chaos.workload import Workload


class Publisher:
    """Appends batch by batch and keeps every record, for the clean pass."""

    def __init__(self, scale: Scale, workload: Workload, client: Redis) -> None:
        self._scale = scale
        self._batches = workload.batches()
        self._client = client
        self._log = RedisEventLog(client, SOURCE, scale.partitions)
        self.records: list[LogRecord] = []
        self.done = False

    def publish(self) -> None:
        """Append the next batch, if there is one."""
        batch = next(self._batches, None)
        if batch is None:
            self.done = True
            return
        at, events = batch
        for partition in range(self._scale.partitions):  # the broker's clock never runs back: it stays at this instant
            self._client.set(keys_of(partition).broker_clock, at)
        places = [
            partition_of(one.key, self._scale.partitions) if one.partition is None else one.partition for one in events
        ]
        appended = self._log.append_to(list(zip(places, (one.body for one in events), strict=True)))
        for one, place in zip(events, appended, strict=True):
            assert place is not None, "the embedded log acknowledges all or raises"
            assert place.sequence is not None, "the embedded log tells where it put an event"
            self.records.append(LogRecord(SOURCE, place.partition, place.sequence, at, one.body))
