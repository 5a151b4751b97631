"""The stage that exports the ranker leaves the parts that explain it, held to LightGBM's own contributions."""

from __future__ import annotations

from pathlib import Path

import lightgbm as lgb
import msgspec
import numpy as np
import pytest

from batch import export_ranker
from batch.models import trained_ranker
from batch.models.ranker_onnx import ExportGateError
from batch.models.ranker_trees import tree_paths
from shared.features.vector import SCHEMA
from shared.ranking.contributions import TreePaths
from shared.ranking.page_table import PageTable
from shared.ranking.ranker_parts import RankerParts

PAGES, LENGTH = 40, 20


def pages(features: np.ndarray) -> PageTable:
    rows = len(features)
    return PageTable(
        features=features, index=np.zeros(rows, np.int32), label=np.zeros(rows, np.int8),
        positive=np.zeros(rows, np.bool_), ranks=np.zeros((rows, 1), np.int16), popularity=np.zeros(rows, np.float32),
        category=np.zeros(rows, np.int64), seen=np.zeros(rows, np.bool_), stranger=np.zeros(PAGES, np.bool_),
        history=np.ones(PAGES, np.int32), length=np.full(PAGES, LENGTH, np.int32),
        candidates=np.full(PAGES, LENGTH, np.int32),
        user=np.zeros(PAGES, np.int32), as_of=np.zeros(PAGES, np.int64), at_start=np.zeros(PAGES, np.bool_),
        sessions_before=np.zeros(PAGES, np.int32), positives=np.zeros(PAGES, np.int32),
        positive_items=np.zeros(0, np.int32), touched=np.zeros(0, np.bool_), frequent=np.zeros((PAGES, 20), np.int32),
    )  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    features = np.round(rng.normal(size=(PAGES * LENGTH, len(SCHEMA.names))), 1).astype(np.float32)
    labels = np.digitize(features[:, 0] + features[:, 1] * features[:, 2], [0.5, 1.5])
    parameters = {"objective": "lambdarank", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    train_set = lgb.Dataset(features, labels, group=[LENGTH] * PAGES, feature_name=list(SCHEMA.names))
    (tmp_path / "nightly/ranker").mkdir(parents=True)
    lgb.train(parameters, train_set, 8).save_model(str(tmp_path / "nightly/ranker/model.txt"))
    pages(features).save(tmp_path / "nightly/training/test")
    (tmp_path / "nightly/training/summary.json").write_bytes(msgspec.json.encode({"schema": SCHEMA.digest}))
    return tmp_path


def test_the_trees_lie_beside_the_onnx_form_and_the_gate_says_how_exact_they_are(data: Path) -> None:
    assert export_ranker.main(["--data", str(data)]) == 0
    parts = RankerParts.decode((data / "nightly/onnx/parts.npz").read_bytes())
    assert parts.features_count == len(SCHEMA.names)
    assert parts.terms is None
    gate = msgspec.json.decode((data / "nightly/onnx/gate.json").read_bytes())
    assert gate["contribution_error"] < 1e-9
    assert gate["given"]["wrong_rows"] == 0


def test_trees_that_explain_otherwise_stop_the_export(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def skewed(booster: lgb.Booster) -> TreePaths:
        paths = tree_paths(booster)
        paths.value[0] += 1.0
        return paths

    monkeypatch.setattr(trained_ranker, "tree_paths", skewed)
    with pytest.raises(ExportGateError, match="explain scores otherwise"):
        export_ranker.export(data)
    assert not (data / "nightly/onnx").exists()
