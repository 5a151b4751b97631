"""The lake's accepted events one by one, in an order that every fold may take."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.features.replay import LoggedEvent
from shared.ingest.lake_table import events_of_table
from shared.ports import Verdict


def logged_events(table: pa.Table) -> Iterator[LoggedEvent]:
    """The accepted rows of a lake table (whole schema), in the table's order."""
    accepted = table.filter(pc.equal(table["verdict"], Verdict.ACCEPTED.value))
    coordinates = [accepted[name].to_pylist() for name in ("source", "partition", "sequence", "enqueued_at")]
    for source, partition, sequence, enqueued_at, event in zip(*coordinates, events_of_table(accepted), strict=True):
        if event is not None:
            yield LoggedEvent(source, partition, sequence, enqueued_at, event)


def in_log_time(table: pa.Table) -> pa.Table:
    """Ordered by (enqueued_at, source, partition, sequence): one interleaving that keeps each partition's order."""
    sources = table["source"].combine_chunks().dictionary_encode()
    names = np.asarray(sources.dictionary)
    place = np.empty(len(names), dtype=np.int64)
    place[np.argsort(names)] = np.arange(len(names))
    codes = place[np.asarray(sources.indices)] if len(names) else np.empty(0, dtype=np.int64)
    keys = [np.asarray(table[name]) for name in ("sequence", "partition")]
    return table.take(pa.array(np.lexsort((*keys, codes, np.asarray(table["enqueued_at"])))))
