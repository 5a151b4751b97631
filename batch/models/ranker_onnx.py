"""Exports a LightGBM ranker to ONNX such that it decides every split as LightGBM does, and proves it.

How a split decides, and why thresholds are rounded down, is told in `batch.models.dumped_trees`.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from batch.models.dumped_trees import (
    first_right,
    float32_threshold,
    neighbour,
    read_split,
    refuse_unsupported,
    splits_with_bounds,
    walk,
)
from batch.models.linear_onnx import edge_rows, linear_nodes
from shared.errors import RecommndrError, SchemaMismatch
from shared.ranking.linear_terms import LinearTerms
from shared.ranking.scorer import OnnxScorer

SCORE_TOLERANCE: Final = 1e-5
"""Largest score difference an export may show, times max(1, |score|)."""

_OPSET: Final = 18
_ML_OPSET: Final = 3
_IR_VERSION: Final = 9

_GATE_SEED: Final = 20261123
_GATE_ROWS: Final = 4096
_MISSING_SHARE: Final = 0.05


class ExportGateError(RecommndrError):
    """An exported ranker does not score or order as its LightGBM model does; it must not be published."""


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """How one ONNX model differs from its booster on some rows.

    ``max_error`` is in units of max(1, |LightGBM score|); ``wrong_rows`` are beyond the tolerance; ``misordered_rows``
    do not stand above some row that LightGBM puts below them by more than the tolerance, all rows read as one list.
    """

    rows: int
    max_error: float
    wrong_rows: int
    misordered_rows: int

    @property
    def exact(self) -> bool:
        """Whether no row differs beyond the tolerance, in score or in order."""
        return self.wrong_rows == 0 and self.misordered_rows == 0


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What the gate measured on the rows it was given and on rows made to sit on the thresholds."""

    given: ScoreComparison
    on_threshold: ScoreComparison


def export_ranker(booster: lgb.Booster, feature_names: Sequence[str]) -> bytes:
    """Converts a LightGBM ranking or regression model (up to its best iteration) to a serialized ONNX model.

    Input "features" float32 [None, F], output "score" float32 [None, 1]; the feature names stand in the model's
    metadata under "feature_names" as a JSON list. Every split decides as LightGBM's for every float32 value, NaN and
    infinities included; leaves and their sums are float32, so that labels of a regression should be of unit scale
    (the gate refuses sums that lose too much). Raises ``UnsupportedRankerError`` for categorical splits,
    ``zero_as_missing``, linear trees, averaged (rf) or multi-output models and objectives with a link function, and
    ``SchemaMismatch`` if the names are not those the model was trained on.
    """
    return export_parts(booster, None, feature_names)


def export_parts(booster: lgb.Booster | None, terms: LinearTerms | None, feature_names: Sequence[str]) -> bytes:
    """As `export_ranker`, for a score that is the sum of trees and terms, of which one at least is there."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    scores = []
    if booster is not None:
        model = booster.dump_model()
        refuse_unsupported(model)
        _check_names(booster, feature_names)
        attributes = _tree_attributes(model["tree_info"])
        scores.append("tree_score")
        nodes.append(
            helper.make_node("TreeEnsembleRegressor", ["features"], scores[-1:], domain="ai.onnx.ml", **attributes)
        )
    if terms is not None:
        scores.append("linear_score")
        linear, constants = linear_nodes(terms, "features", scores[-1])
        nodes += linear
    nodes.append(helper.make_node("Sum", scores, ["score"]))
    graph = helper.make_graph(
        nodes,
        "ranker",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(feature_names)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    exported = helper.make_model(
        graph,
        producer_name="recommndr",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)],
    )
    helper.set_model_props(exported, {"feature_names": json.dumps(list(feature_names))})
    onnx.checker.check_model(exported)
    serialized: bytes = exported.SerializeToString(deterministic=True)
    return serialized


def compare_scores(
    booster: lgb.Booster | None, onnx_bytes: bytes, features: NDArray[np.float32], terms: LinearTerms | None = None
) -> ScoreComparison:
    """Scores float32 features [n, F] with both models, the ONNX one as serving does, and counts the differences."""
    expected = np.zeros(len(features))
    if booster is not None:
        expected += np.asarray(booster.predict(features, num_threads=1), dtype=np.float64)
    if terms is not None:
        expected += terms.score(features)
    actual = OnnxScorer(onnx_bytes).score(features).astype(np.float64)
    scale = np.maximum(1.0, np.abs(expected))
    errors = np.abs(actual - expected) / scale
    return ScoreComparison(
        rows=len(expected),
        max_error=float(errors.max(initial=0.0)),
        # Negated, so that a NaN score counts as wrong.
        wrong_rows=int(np.count_nonzero(~(errors <= SCORE_TOLERANCE))),
        misordered_rows=_count_misordered(expected, actual, SCORE_TOLERANCE * scale),
    )


def check_export(
    booster: lgb.Booster | None, onnx_bytes: bytes, features: NDArray[np.float32], terms: LinearTerms | None = None
) -> ExportReport:
    """The gate of every export: float32 features [n, F], and rows on the thresholds, score and rank alike.

    Every split is tried on both sides of its threshold, every term where its transform turns or is cut. Raises
    ``ExportGateError`` on a score difference above ``SCORE_TOLERANCE`` x max(1, |score|), or if two rows further apart
    than that change places or tie.
    """
    rng = np.random.default_rng(_GATE_SEED)
    if booster is not None:
        splits = sum(tree["num_leaves"] - 1 for tree in booster.dump_model()["tree_info"])
        adversarial = on_threshold_rows(booster, rng, max(_GATE_ROWS, 2 * splits))
    else:
        adversarial = features[rng.integers(len(features), size=_GATE_ROWS)] if len(features) else features
    if terms is not None:
        adversarial = np.vstack([adversarial, edge_rows(terms, rng, adversarial)])
    report = ExportReport(
        given=compare_scores(booster, onnx_bytes, features, terms),
        on_threshold=compare_scores(booster, onnx_bytes, adversarial, terms),
    )
    if not (report.given.exact and report.on_threshold.exact):
        raise ExportGateError(
            f"The ONNX model does not rank as {'LightGBM' if terms is None else 'its terms and trees'} does: on the "
            f"given rows {report.given}, on threshold rows {report.on_threshold}. Do not publish it; export with "
            "export_ranker and train on float32 features."
        )
    return report


def on_threshold_rows(booster: lgb.Booster, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Adversarial float32 rows [count, F]: the float32 values below, on and above split thresholds, and integers.

    Rows come in pairs, each pair aimed at one split: its features are set so that the walk reaches the split, then
    to the last value that goes left and the first that goes right. With count >= 2 x splits every split is tried.
    Columns that do not matter on the way hold random such values, some NaN.
    """
    model = booster.dump_model()
    splits = [placed for tree in model["tree_info"] for placed in splits_with_bounds(tree["tree_structure"])]
    rows = np.empty((count, booster.num_feature()), dtype=np.float32)
    for column in range(rows.shape[1]):
        pool = _boundary_values([split.threshold for split, _ in splits if split.feature == column])
        rows[:, column] = rng.choice(pool, size=count)
    rows[rng.random(rows.shape) < _MISSING_SHARE] = np.nan
    if splits:
        order = np.resize(rng.permutation(len(splits)), (count + 1) // 2)
        for row in range(count):
            split, bounds = splits[order[row // 2]]
            for column, value in bounds.items():
                rows[row, column] = value
            rows[row, split.feature] = (
                float32_threshold(split.threshold) if row % 2 == 0 else first_right(split.threshold)
            )
    return rows


def _check_names(booster: lgb.Booster, feature_names: Sequence[str]) -> None:
    trained = booster.feature_name()
    unnamed = [f"Column_{column}" for column in range(len(trained))]
    if len(feature_names) != len(trained) or (trained != unnamed and trained != list(feature_names)):
        raise SchemaMismatch(
            f"The model was trained on {trained}, not on {list(feature_names)}; pass the names of its training set."
        )


def _tree_attributes(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The attributes of TreeEnsembleRegressor (ai.onnx.ml 3); nodes are numbered parents first, true branch next."""
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    for tree_id, tree in enumerate(trees):
        nodes = list(walk(tree["tree_structure"]))
        # dump_model makes one dict a node and `trees` keeps them alive, so identity names a node.
        number = {id(node): position for position, node in enumerate(nodes)}
        for node_id, node in enumerate(nodes):
            split = read_split(node)
            _append(
                columns,
                nodes_treeids=tree_id,
                nodes_nodeids=node_id,
                nodes_featureids=split.feature if split else 0,
                nodes_modes="BRANCH_LEQ" if split else "LEAF",
                nodes_values=float(float32_threshold(split.threshold)) if split else 0.0,
                nodes_truenodeids=number[id(split.left)] if split else 0,
                nodes_falsenodeids=number[id(split.right)] if split else 0,
                nodes_missing_value_tracks_true=int(split.nan_goes_left) if split else 0,
            )
            if split is None:
                _append(
                    columns,
                    target_treeids=tree_id,
                    target_nodeids=node_id,
                    target_ids=0,
                    target_weights=float(node["leaf_value"]),
                )
    return {**columns, "n_targets": 1, "aggregate_function": "SUM", "post_transform": "NONE"}


def _append(columns: Mapping[str, list[Any]], **values: Any) -> None:
    for name, value in values.items():
        columns[name].append(value)


def _boundary_values(thresholds: Sequence[float]) -> NDArray[np.float32]:
    values = [*range(-2, 12)]
    for threshold in thresholds:
        last_left = float32_threshold(threshold)
        values += [neighbour(last_left, -np.inf), last_left, first_right(threshold)]
        if math.isfinite(threshold):
            values += [math.floor(threshold), math.ceil(threshold)]
    return np.unique(np.asarray(values, dtype=np.float32))


def _count_misordered(
    expected: NDArray[np.float64], actual: NDArray[np.float64], tolerance: NDArray[np.float64]
) -> int:
    """How many rows fail to score above some row whose expected score is lower by more than the tolerance."""
    ascending = np.argsort(expected, kind="stable")
    ordered = expected[ascending]
    highest_so_far = np.concatenate([[-np.inf], np.maximum.accumulate(actual[ascending])])
    clearly_below = np.searchsorted(ordered, ordered - tolerance[ascending], side="left")
    return int(np.count_nonzero(actual[ascending] <= highest_so_far[clearly_below]))
