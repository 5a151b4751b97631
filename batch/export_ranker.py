"""Stage: the ranker as ONNX and its trees as paths, behind the gates that both say what LightGBM says."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import lightgbm as lgb
import msgspec
import numpy as np

from batch.models.ranker_onnx import check_export, export_ranker
from batch.models.ranker_trees import check_contributions, tree_paths
from shared.adapters.stage_folder import replace_folder
from shared.cli import command
from shared.errors import ConfigurationError
from shared.features.vector import SCHEMA
from shared.ranking.page_table import load_pages

GATE_ROWS: Final = 20_000


def export(data: Path) -> None:
    """Write nightly/onnx/{ranker.onnx, trees.npz, gate.json}.

    Raises ExportGateError when the export ranks, or the trees explain, otherwise than LightGBM does.
    """
    model = data / "nightly/ranker/model.txt"
    if not model.exists():
        raise ConfigurationError(f"{model} is not there; run python -m batch.train_ranker --data {data} first")
    booster = lgb.Booster(model_file=str(model))
    exported = export_ranker(booster, SCHEMA.names)
    rows = load_pages(data, "test").features
    step = max(len(rows) // GATE_ROWS, 1)
    sample = np.ascontiguousarray(rows[::step][:GATE_ROWS])
    report = check_export(booster, exported, sample)
    paths = tree_paths(booster)
    explained = check_contributions(booster, paths, sample)
    with replace_folder(data / "nightly/onnx") as folder:
        (folder / "ranker.onnx").write_bytes(exported)
        (folder / "trees.npz").write_bytes(paths.encode())
        measured = {**asdict(report), "contribution_error": explained}
        (folder / "gate.json").write_bytes(msgspec.json.format(msgspec.json.encode(measured)))
    print(
        f"{len(exported):,} bytes; score error at most {report.given.max_error:.1e} on {report.given.rows:,} rows, "
        f"{report.on_threshold.max_error:.1e} on {report.on_threshold.rows:,} on thresholds; order equal; "
        f"contributions differ by at most {explained:.1e}"
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m batch.export_ranker", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    export(parser.parse_args(argv).data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
