"""Where the time of one chunk goes: its steps done one by one, each timed, with the path's own functions."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from shared.adapters.redis_state import RedisStateStore
from shared.ingest.chunks import MOST_RECORDS, next_chunk, ordered
from shared.ingest.fold_chunk import AnyVersion, fold_chunk, fresh_entry, touched_by
from shared.ingest.state_versions import CURRENT_VERSION
from tests.benchmarks.event_stream import SOURCE, EventStream, log_records

PARTITION: Final = 80
_REST: Final = "verdicts, catalogue, writes"


class Stages:
    """Seconds of each named stage, by chunk; what runs inside a stage is taken off it."""

    def __init__(self) -> None:
        self.chunks: list[dict[str, float]] = []

    def begin_chunk(self) -> None:
        """What is timed from here on belongs to a new chunk."""
        self.chunks.append(defaultdict(float))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        inside = sum(self.chunks[-1].values())
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.chunks[-1][name] += took - (sum(self.chunks[-1].values()) - inside)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its calls timed."""

        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            answer = function(*arguments)
            self.chunks[-1][name] += time.perf_counter() - began
            return answer

        return call

    def version(self, plain: AnyVersion) -> AnyVersion:
        """A state version whose functions are timed."""
        return replace(
            plain,
            decode_user=self.timed("decode users", plain.decode_user),
            decode_item=self.timed("decode items", plain.decode_item),
            fold_user=self.timed("fold users", plain.fold_user),
            fold_item=self.timed("fold items", plain.fold_item),
            encode_user=self.timed("encode users", plain.encode_user),
            encode_item=self.timed("encode items", plain.encode_item),
        )


def stage_times(store: RedisStateStore, chunks: int, *, warm: int = 10_000) -> dict[str, float]:
    """Microseconds an event of every stage, of a partition that was warmed up.

    The first decile over chunks of 100: where others use the machine too, the median is theirs.
    """
    records = log_records(list(EventStream(8, users=20_000).bodies(warm + chunks * MOST_RECORDS)), partition=PARTITION)
    stages = Stages()
    version = stages.version(CURRENT_VERSION)
    for start in range(0, len(records), MOST_RECORDS):
        offered = records[start : start + MOST_RECORDS]
        stages.begin_chunk()
        with stages.stage("order and cut"):
            run = next_chunk(ordered(offered, SOURCE, PARTITION), start - 1)
        assert isinstance(run, list), "the records are consecutive"
        with stages.stage("decode and check JSON"):
            entries = [fresh_entry(record) for record in run]
        with stages.stage("read from Redis"):
            state = store.read(SOURCE, PARTITION, [version.name], touched_by(entries))
        with stages.stage(_REST):
            commit = fold_chunk(entries, state, [version], with_log=True)
        with stages.stage("commit to Redis"):
            store.commit(commit)
    measured = stages.chunks[-chunks:]
    names = sorted({name for chunk in measured for name in chunk})
    best = {name: statistics.quantiles([chunk[name] for chunk in measured], n=10)[0] for name in names}
    return {name: round(seconds / MOST_RECORDS * 1e6, 2) for name, seconds in best.items()}
