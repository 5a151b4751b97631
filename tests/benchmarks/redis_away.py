"""Redis is killed under load over a real Kafka topic and comes back: is anything lost or twice, how soon is it in?"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local.embedded import STATE_OPTIONS, EmbeddedServer, EmbeddedServers
from local.kafka_broker import KafkaBroker, fetch_jars
from local.server_process import server_process
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.kafka_connection import open_connection
from shared.adapters.kafka_log import KafkaLog
from shared.adapters.redis_connection import connect
from shared.adapters.redis_shards import RedisShardReader
from shared.adapters.redis_state import RedisStateStore
from shared.cli import command
from shared.errors import InfrastructureFault, StateUnavailable
from shared.events import decode_event
from shared.features.fold import ItemCounters
from shared.ingest.recorded_log import RecordedLog
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import Touched, Verdict
from shared.settings import SECRET_DEFAULT
from tests.benchmarks.posted_load import PostedLoad
from tests.integration.api_shop import open_shop

TOPIC: Final = "events"
SOURCE: Final = f"kafka-{TOPIC}"
PARTITIONS: Final = 4
BEFORE_S: Final = 5.0
AFTER_S: Final = 5.0
GIVE_UP_S: Final = 300.0


@dataclass
class Watch:
    """How far the state is behind the topic."""

    log: KafkaLog
    store: RedisStateStore

    def ends(self) -> list[int]:
        """The topic's last sequence of each partition, -1 for none."""
        found = [self.log.last_sequence(part) for part in range(PARTITIONS)]
        return [-1 if last is None else last for last in found]

    def marks(self) -> list[int]:
        """The log marks, -1 for none. Raises StateUnavailable."""
        states = (self.store.read(SOURCE, part, [CURRENT_VERSION.name], Touched()) for part in range(PARTITIONS))
        return [-1 if state.log_mark is None else state.log_mark.sequence for state in states]

    def wait_for(self, ends: Sequence[int]) -> float:
        """Seconds until every mark is there. Raises InfrastructureFault after five minutes."""
        began = time.monotonic()
        while time.monotonic() - began < GIVE_UP_S:
            with contextlib.suppress(StateUnavailable):
                if all(mark >= end for mark, end in zip(self.marks(), ends, strict=True)):
                    return time.monotonic() - began
            time.sleep(0.02)
        raise InfrastructureFault(f"the state never came to {ends}; it stands at {self.marks()}")


def accepted_ids(watch: Watch, data: Path) -> Counter[str]:
    """How often each event id stands as accepted in lake and landing."""
    found: Counter[str] = Counter()
    for part, end in enumerate(watch.ends()):
        rows = RecordedLog(SOURCE, part, watch.store, FolderBlobStore(data)).rows(0, end)
        found.update(decode_event(row.body).event_id for row in rows if row.verdict is Verdict.ACCEPTED)
    return found


def counted_views(state_url: str) -> int:
    """The views that the item shards count."""
    with connect(state_url, timeout_ms=5000) as client:
        reader = RedisShardReader(client, SECRET_DEFAULT, CURRENT_VERSION.name)
        shards = (data for part in range(PARTITIONS) for data in reader.snapshot_items(SOURCE, part).counters.values())
        return sum(int(ItemCounters.decode(data).state.counts.sum()) for data in shards)


def measure(folder: Path, seconds: float, rate: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Kill Redis for `seconds` while `rate` events a second are posted, and compare what was acknowledged."""
    data = folder / "shop"
    with (
        EmbeddedServers(data) as servers,
        open_shop(servers.state_url, servers.log_url, data, USER_KEY_SECRET=SECRET_DEFAULT),
    ):
        pass
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(KafkaBroker(folder / "kafka", fetch_jars()))
        state = stack.enter_context(EmbeddedServer(data / "state", STATE_OPTIONS))
        url = f"kafka://{broker.address}/{TOPIC}"
        server = stack.enter_context(server_process(data, 0, {"REDIS_URL": state.url}, ["--broker", url]))
        log = stack.enter_context(
            contextlib.closing(KafkaLog(open_connection(url), SOURCE, PARTITIONS, timeout_ms=10_000))
        )
        client = stack.enter_context(contextlib.closing(connect(state.url, timeout_ms=5000)))
        watch = Watch(log, RedisStateStore(client, SECRET_DEFAULT))
        load = PostedLoad(server.address, rate)
        load.start()
        time.sleep(BEFORE_S)
        before = len(load.acknowledged)
        state.kill()
        say(f"Redis is away for {seconds:g} s")
        time.sleep(seconds)
        while_away, behind = len(load.acknowledged) - before, watch.ends()
        state.start()
        missed = sum(behind) - sum(watch.marks())
        catch_up_s = watch.wait_for(behind)
        say(f"{missed:,} events behind, caught up in {catch_up_s:.1f} s")
        time.sleep(AFTER_S)
        load.stop()
        watch.wait_for(watch.ends())
        found = accepted_ids(watch, data)
        counted = counted_views(state.url)
    return {
        "away_s": seconds,
        "events_per_s": round(load.achieved, 1),
        "acknowledged": len(load.acknowledged),
        "acknowledged_while_away": while_away,
        "refused_requests": load.refusals,
        "behind_when_back": missed,
        "catch_up_s": round(catch_up_s, 2),
        "lost": len(load.acknowledged - set(found)),
        "twice": sum(times > 1 for times in found.values()),
        "accepted_in_log": sum(found.values()),
        "counted_in_state": counted,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 1),
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 when every acknowledged event is in log and state exactly once, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.redis_away", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long Redis is away (%(default)s)")
    parser.add_argument("--rate", type=int, default=500, help="events posted a second (%(default)s)")
    arguments = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="recommndr-away-"))
    try:
        outcome = measure(folder, arguments.seconds, arguments.rate, lambda text: print(f"» {text}", file=sys.stderr))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(outcome, indent=2))
    once = not outcome["lost"] and not outcome["twice"] and outcome["counted_in_state"] == outcome["accepted_in_log"]
    return 0 if once else 1


if __name__ == "__main__":
    sys.exit(main())
