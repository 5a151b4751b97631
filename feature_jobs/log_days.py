"""The log a day at a time, in log time: what a pass over years needs without holding them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from feature_jobs.backfill_plan import read_lake_file
from shared.features.replay import LoggedEvent
from shared.ingest.erased_users import KeyOf, no_secret
from shared.ingest.lake import read_manifest
from shared.ingest.lake_files import DAY_MS, day_text
from shared.ingest.lake_reading import in_order
from shared.ingest.lake_sealed import not_yet_in, read_sealed, sealed_files
from shared.ingest.lake_table import LAKE_SCHEMA, table_of_landing
from shared.ingest.logged_events import in_log_time, logged_events
from shared.ingest.redaction import redaction_of_lake, without_erased
from shared.ports import BlobStore


def log_days(blobs: BlobStore, since: int | None = None, *, key_of: KeyOf = no_secret) -> Iterator[pa.Table]:
    """The lake's rows, a table each UTC day of enqueued_at, ascending, each in log time, each coordinate once.

    Together they are `in_log_time(read_rows(blobs))`, but that nothing is left of users who were erased, also where no
    compaction has seen that yet. `since` (epoch ms) leaves out the days that end before it. Raises LakeConflict when
    the lake changes meanwhile.
    """
    manifest = read_manifest(blobs)
    redaction = redaction_of_lake(blobs, manifest, key_of)
    sealed = _sealed_days(blobs)
    files = manifest.files if manifest is not None else ()
    for day in sorted({*(entry.day for entry in files), *sealed}):
        if since is not None and day < day_text(since):
            continue
        tables = [read_lake_file(blobs, entry) for entry in files if entry.day == day]
        whole = in_order([LAKE_SCHEMA.empty_table(), *tables, *sealed.get(day, [])])
        yield in_log_time(without_erased(whole, redaction))


def events_by_day(blobs: BlobStore, since: int | None = None, *, key_of: KeyOf = no_secret) -> Iterator[LoggedEvent]:
    """The accepted events of `log_days`, in their order."""
    for table in log_days(blobs, since, key_of=key_of):
        yield from logged_events(table)


def _sealed_days(blobs: BlobStore) -> dict[str, list[pa.Table]]:
    """What is sealed and not compacted yet, by day: a night's worth."""
    found: dict[str, list[pa.Table]] = {}
    for file in not_yet_in(sealed_files(blobs), read_manifest(blobs)):
        table = table_of_landing(read_sealed(blobs, file.name))
        days = np.asarray(table["enqueued_at"]) // DAY_MS
        for day in np.unique(days):
            found.setdefault(day_text(int(day) * DAY_MS), []).append(table.filter(pa.array(days == day)))
    return found
