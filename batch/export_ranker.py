"""Stage: the ranker as ONNX and its parts for explanations, behind the gates that both say what the ranker says."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from batch.models.ranker_onnx import ExportGateError, check_export
from batch.models.ranker_trees import CONTRIBUTION_TOLERANCE, check_contributions
from batch.models.trained_ranker import TrainedRanker
from shared.adapters.stage_folder import replace_folder
from shared.cli import command
from shared.features.vector import Matrix
from shared.ranking.calibration import Calibration
from shared.ranking.page_table import load_pages
from shared.ranking.ranker_parts import RankerParts
from shared.releases.bundle import CALIBRATION

GATE_ROWS: Final = 20_000
_EXPLAINED_ROWS: Final = 512


def export(data: Path) -> None:
    """Write nightly/onnx/{ranker.onnx, parts.npz, gate.json}, and calibration.json where training left one.

    Raises ExportGateError when the export ranks, or its parts explain, otherwise than the ranker does.
    """
    ranker = TrainedRanker.load(data / "nightly/ranker")
    exported = ranker.to_onnx()
    rows = load_pages(data, "test").features
    step = max(len(rows) // GATE_ROWS, 1)
    sample = np.ascontiguousarray(rows[::step][:GATE_ROWS])
    report = check_export(ranker.booster, exported, sample, ranker.terms)
    parts = ranker.parts()
    explained = _check_parts(ranker, parts, sample)
    calibration = data / "nightly/ranker" / CALIBRATION
    with replace_folder(data / "nightly/onnx") as folder:
        (folder / "ranker.onnx").write_bytes(exported)
        (folder / "parts.npz").write_bytes(parts.encode())
        if calibration.exists():
            (folder / CALIBRATION).write_bytes(Calibration.decode(calibration.read_bytes()).encode())
        measured = {**asdict(report), "contribution_error": explained}
        (folder / "gate.json").write_bytes(msgspec.json.format(msgspec.json.encode(measured)))
    print(
        f"{ranker.name}: {len(exported):,} bytes; score error at most {report.given.max_error:.1e} on "
        f"{report.given.rows:,} rows, {report.on_threshold.max_error:.1e} on {report.on_threshold.rows:,} on "
        f"thresholds; order equal; contributions differ by at most {explained:.1e}"
    )


def _check_parts(ranker: TrainedRanker, parts: RankerParts, rows: Matrix) -> float:
    """The largest error, in units of max(1, |score|), of trees against LightGBM and of sums against scores."""
    error = 0.0
    if ranker.booster is not None and parts.trees is not None:
        error = check_contributions(ranker.booster, parts.trees, rows)
    rows = rows[:_EXPLAINED_ROWS]
    scores = ranker.exact_score(rows)
    found = parts.contributions(rows)
    apart = np.abs(found.values.sum(axis=1) + found.expected - scores) / np.maximum(1.0, np.abs(scores))
    error = max(error, float(apart.max(initial=0.0)))
    if not error <= CONTRIBUTION_TOLERANCE:
        raise ExportGateError(f"the ranker's parts add up to other scores than its own, by {error:.1e}; do not publish")
    return error


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m batch.export_ranker", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    export(parser.parse_args(argv).data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
