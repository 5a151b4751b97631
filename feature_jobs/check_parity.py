"""Compare the vectors that pages were ranked with to a recomputation from the lake, feature by feature.

Runs without Redis but for sealing first what has landed. A page that saw more than the lake holds is pending.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_jobs.recompute import Exposure, Past
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.cli import command
from shared.errors import ReleaseUnavailable, StateUnavailable
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.ingest.exposures import read_exposures
from shared.ingest.lake import read_rows
from shared.ingest.logged_events import logged_events
from shared.ingest.seal import seal_landing
from shared.ports import BlobStore
from shared.releases.manifest import read_manifest
from shared.settings import Settings

TOLERANCE: Final = 1e-6
"""Of max(1, |a|, |b|)."""


@dataclass
class Differences:
    """What was compared, by feature: rows, mismatches above the tolerance, and the largest difference."""

    rows: int = 0
    exposures: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    mismatches: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(SCHEMA.names), dtype=np.int64))
    largest: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(SCHEMA.names)))
    first_mismatch: dict[str, str] = field(default_factory=dict)

    def add(self, exposure: Exposure, logged: NDArray[np.float32], recomputed: NDArray[np.float32]) -> None:
        """Compare float32[n, F] to float32[n, F]."""
        left, right = logged.astype(np.float64), recomputed.astype(np.float64)
        scale = np.maximum(1.0, np.maximum(np.abs(left), np.abs(right)))
        difference = np.where(np.isnan(left) & np.isnan(right), 0.0, np.abs(left - right) / scale)
        difference[np.isnan(difference)] = np.inf
        self.rows += len(left)
        self.exposures += 1
        wrong = difference > TOLERANCE
        self.mismatches += wrong.sum(axis=0)
        self.largest = np.maximum(self.largest, difference.max(axis=0, initial=0.0))
        for column in np.flatnonzero(wrong.any(axis=0)):
            row = int(np.flatnonzero(wrong[:, column])[0])
            self.first_mismatch.setdefault(
                SCHEMA.names[column],
                f"{exposure.recommendation_id} item {exposure.items[row]}: "
                f"served {left[row, column]!r}, recomputed {right[row, column]!r}",
            )

    def report(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "exposures": self.exposures,
            "rows": self.rows,
            "skipped": dict(self.skipped),
            "tolerance": TOLERANCE,
            "mismatches": int(self.mismatches.sum()),
            "features": {
                name: {
                    "rows": self.rows,
                    "mismatches": int(self.mismatches[column]),
                    "largest": float(self.largest[column]),
                }
                for column, name in enumerate(SCHEMA.names)
            },
            "first_mismatch": self.first_mismatch,
        }


def check_parity(blobs: BlobStore) -> Differences:
    """Recompute every exposure that the lake covers."""
    past = Past.of(list(logged_events(read_rows(blobs))))
    coverage = _coverage(blobs)
    zone_of = cache(partial(_time_zone, blobs))
    differences = Differences()
    comparable = [one for one in _exposures(blobs, differences) if _covered(one, coverage, differences)]
    comparable.sort(key=lambda one: (sum(one.item_marks.values()), one.worker, one.number))
    reported = time.perf_counter()
    for done, exposure in enumerate(comparable):
        zone = zone_of(exposure.release)
        if zone is None:
            differences.skipped["its release is gone"] += 1
            continue
        differences.add(exposure, exposure.logged(), past.vectors(exposure, zone))
        if time.perf_counter() - reported > 3:
            reported = time.perf_counter()
            print(f"  {done + 1:,} of {len(comparable):,} exposures compared", flush=True)
    return differences


def _time_zone(blobs: BlobStore, release_id: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(read_manifest(blobs, release_id).time_zone)
    except ReleaseUnavailable:
        return None


def _exposures(blobs: BlobStore, differences: Differences) -> Iterable[Exposure]:
    for line in read_exposures(blobs):
        exposure = Exposure.of(line)
        if exposure.schema != SCHEMA.digest or exposure.state_version != STATE_VERSION:
            differences.skipped["other feature schema"] += 1
        elif not exposure.items:
            differences.skipped["empty page"] += 1
        else:
            yield exposure


def _coverage(blobs: BlobStore) -> dict[str, int]:
    """The last sequence the lake holds of each partition, whatever the verdict on it was."""
    rows = read_rows(blobs, columns=["source", "partition", "sequence", "last_sequence"])
    held = rows.group_by(["source", "partition"]).aggregate([("sequence", "max"), ("last_sequence", "max")])
    return {
        f"{row['source']}.{row['partition']}": max(row["sequence_max"], row["last_sequence_max"] or -1)
        for row in held.to_pylist()
    }


def _covered(exposure: Exposure, coverage: dict[str, int], differences: Differences) -> bool:
    seen = [*exposure.visibility.items(), *exposure.item_marks.items()]
    if any(sequence > coverage.get(part, -1) for part, sequence in seen):
        differences.skipped["pending: saw more than the lake holds yet"] += 1
        return False
    return True


def _seal(blobs: BlobStore, settings: Settings) -> str:
    store = RedisStateStore(connect(settings.redis_url), settings.user_key_secret)
    try:
        sealed = seal_landing(settings.event_source, range(settings.partition_count), store=store, blobs=blobs)
    except StateUnavailable as error:
        return f"nothing sealed ({error}): what has landed since the last sealing is pending"
    return f"{sealed:,} landed rows sealed"


def _plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - only --plot needs it, and it takes a second to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - see above

    features = report["features"]
    names = sorted(features, key=lambda name: features[name]["largest"])
    figure, axes = plt.subplots(figsize=(9, 1 + 0.2 * len(names)), layout="constrained")
    axes.barh(names, [max(features[name]["largest"], 1e-12) for name in names], color="#3b6ea5")
    axes.axvline(TOLERANCE, color="#b03a2e", linestyle="--")
    axes.set_xscale("log")
    axes.set_title(f"Largest difference served / recomputed, {report['rows']:,} vectors")
    figure.savefig(path, dpi=110)
    plt.close(figure)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 when everything agrees, 1 when something differs or nothing could be compared."""
    parser = argparse.ArgumentParser(prog="python -m feature_jobs.check_parity", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".recommndr/data"), metavar="DIR", help="default %(default)s")
    parser.add_argument("--no-seal", action="store_true", help="compare with the lake as it is, never touch Redis")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the largest differences (PNG)")
    arguments = parser.parse_args(argv)
    blobs = FolderBlobStore(arguments.data)
    if not arguments.no_seal:
        print(_seal(blobs, Settings.from_environment(os.environ)))
    differences = check_parity(blobs)
    report = differences.report()
    if arguments.out:
        arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    if arguments.plot:
        _plot(report, arguments.plot)
    for reason, count in differences.skipped.items():
        print(f"{count:,} exposures not compared: {reason}")
    for name, where in differences.first_mismatch.items():
        column = SCHEMA.names.index(name)
        print(
            f"{name}: {differences.mismatches[column]:,} mismatches, largest {differences.largest[column]:.2e}; {where}"
        )
    print(
        f"{differences.exposures:,} exposures, {differences.rows:,} vectors of {len(SCHEMA.names)} features: "
        f"{int(differences.mismatches.sum()):,} mismatches above {TOLERANCE:g}, "
        f"largest difference {differences.largest.max():.2e}"
    )
    return 0 if differences.rows and not differences.mismatches.any() else 1


if __name__ == "__main__":
    sys.exit(main())
