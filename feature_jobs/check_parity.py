"""Compare the vectors that pages were ranked with to a recomputation from the lake, feature by feature.

Runs without Redis but for sealing first what has landed. A page that saw more than the lake holds is pending.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from feature_jobs.exposure_order import by_minute
from feature_jobs.parity_report import THRESHOLD, Differences, draw
from feature_jobs.recompute import Exposure, Past
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.user_keys import keyed_with
from shared.cli import command
from shared.errors import ReleaseUnavailable, StateUnavailable
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.ingest.erased_exposures import lines_gone
from shared.ingest.erased_users import ErasedUsers, KeyOf, erased_users, no_secret
from shared.ingest.lake import read_manifest as read_lake_manifest
from shared.ingest.lake import read_rows
from shared.ingest.logged_events import logged_events
from shared.ingest.partitioning import live_source
from shared.ingest.redaction import together
from shared.ingest.seal import seal_landing
from shared.ports import BlobStore
from shared.releases.manifest import read_manifest
from shared.settings import Settings

REPORT_FOLDER: Final = "nightly/parity"
_REPORT_EVERY_S: Final = 3.0


def check_parity(blobs: BlobStore, threshold: float = THRESHOLD, *, key_of: KeyOf = no_secret) -> Differences:
    """Recompute every exposure that the lake covers; time grows with events and exposures, each looked at once.

    What was shown to a user before she was erased cannot be recomputed without her; it is counted.
    """
    started = time.perf_counter()
    users = erased_users(blobs, read_lake_manifest(blobs), key_of)
    rows = together(read_rows(blobs), users)
    coverage = _coverage(rows)
    past = Past.of(logged_events(rows))
    print(f"{rows.num_rows:,} rows of the lake read in {time.perf_counter() - started:.1f} s", flush=True)
    zone_of = cache(partial(_time_zone, blobs))
    differences = Differences(threshold)
    gone = lines_gone(blobs)
    if gone:
        differences.skipped["gone: their users were erased"] = gone
    started = reported = time.perf_counter()
    for exposures, ended in by_minute(blobs):
        for exposure, zone in _comparable(exposures, coverage, zone_of, users, differences):
            differences.add(exposure, exposure.logged(), past.vectors(exposure, zone))
            if time.perf_counter() - reported > _REPORT_EVERY_S:
                reported = time.perf_counter()
                pace = differences.exposures / (reported - started)
                print(f"  {differences.exposures:,} exposures compared, {pace:,.0f}/s", flush=True)
        for worker in ended:
            past.finished(worker)
    return differences


def _comparable(
    exposures: Sequence[Exposure],
    coverage: dict[str, int],
    zone_of: Callable[[str], ZoneInfo | None],
    users: ErasedUsers,
    differences: Differences,
) -> Iterator[tuple[Exposure, ZoneInfo]]:
    """Those that can be compared, with their release's time zone; the others are counted by reason."""
    for exposure in exposures:
        zone = zone_of(exposure.release)
        if exposure.schema != SCHEMA.digest or exposure.state_version != STATE_VERSION:
            differences.skipped["other feature schema"] += 1
        elif exposure.as_of <= users.erased_at.get(exposure.user_key, exposure.as_of - 1):
            differences.skipped["its user was erased"] += 1
        elif not exposure.items:
            differences.skipped["empty page"] += 1
        elif not _covered(exposure, coverage):
            differences.skipped["pending: saw more than the lake holds yet"] += 1
        elif zone is None:
            differences.skipped["its release is gone"] += 1
        else:
            yield exposure, zone


def _time_zone(blobs: BlobStore, release_id: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(read_manifest(blobs, release_id).time_zone)
    except ReleaseUnavailable:
        return None


def _coverage(rows: pa.Table) -> dict[str, int]:
    """The last sequence the lake holds of each partition, whatever the verdict on it was."""
    held = rows.group_by(["source", "partition"]).aggregate([("sequence", "max"), ("last_sequence", "max")])
    return {
        f"{row['source']}.{row['partition']}": max(row["sequence_max"], row["last_sequence_max"] or -1)
        for row in held.to_pylist()
    }


def _covered(exposure: Exposure, coverage: dict[str, int]) -> bool:
    seen = (*exposure.visibility.items(), *exposure.item_marks.items())
    return all(sequence <= coverage.get(part, -1) for part, sequence in seen)


def _seal(blobs: BlobStore, settings: Settings) -> str:
    store, live = RedisStateStore(connect(settings.redis_url), settings.user_key_secret), live_source(settings)
    try:
        sealed = seal_landing(live.name, live.partitions(), store=store, blobs=blobs)
    except StateUnavailable as error:
        return f"nothing sealed ({error}): what has landed since the last sealing is pending"
    return f"{sealed:,} landed rows sealed"


def _say(differences: Differences) -> None:
    for reason, count in differences.skipped.items():
        print(f"{count:,} exposures not compared: {reason}")
    for name, where in differences.first_mismatch.items():
        print(f"{name}: {where}")
    print(
        f"{differences.exposures:,} exposures, {differences.rows:,} vectors of {len(SCHEMA.names)} features: "
        f"{int(differences.mismatches.sum()):,} mismatches above {differences.threshold:g}, "
        f"largest difference {differences.largest.max():.2e}"
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 when everything agrees, 1 when too much differs or nothing could be compared."""
    parser = argparse.ArgumentParser(prog="python -m feature_jobs.check_parity", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".recommndr/data"), metavar="DIR", help="default %(default)s")
    parser.add_argument("--no-seal", action="store_true", help="compare with the lake as it is, never touch Redis")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, metavar="X", help="largest difference that is none (%(default)s)"
    )
    parser.add_argument(
        "--most-mismatches", type=int, default=0, metavar="N", help="exit 1 above so many values (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"report as JSON (default: DIR/{REPORT_FOLDER})")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"picture as PNG (default: DIR/{REPORT_FOLDER})")
    arguments = parser.parse_args(argv)
    blobs = FolderBlobStore(arguments.data)
    if not arguments.no_seal:
        print(_seal(blobs, Settings.from_environment(os.environ)))
    key_of = keyed_with(Settings.from_environment(os.environ).user_key_secret)
    differences = check_parity(blobs, arguments.threshold, key_of=key_of)
    report = differences.report()
    print(differences.table())
    if differences.rows:
        out = arguments.out or arguments.data / REPORT_FOLDER / "parity.json"
        plot = arguments.plot or arguments.data / REPORT_FOLDER / "parity.png"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
        draw(report, plot)
        print(f"report {out}, picture {plot}")
    _say(differences)
    return 0 if differences.rows and report["mismatches"] <= arguments.most_mismatches else 1


if __name__ == "__main__":
    sys.exit(main())
