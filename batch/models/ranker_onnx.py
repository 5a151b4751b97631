"""Exports a LightGBM ranker to ONNX such that it decides every split as LightGBM does, and proves it.

LightGBM compares the feature with a float64 threshold, ONNX Runtime with a float32 one. For float32 x and float64 t,
``x <= t`` holds exactly when ``x <= round_down(t)``, round_down(t) being the largest float32 not above t; rounding to
nearest (what onnxmltools does) sends x == nearest(t) > t the wrong way. The semantics of a split are those of
LightGBM's ``Tree::NumericalDecision`` (include/LightGBM/tree.h).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from shared.errors import RecommndrError, SchemaMismatch
from shared.ranking.scorer import OnnxScorer

SCORE_TOLERANCE: Final = 1e-5
"""Largest score difference an export may show, times max(1, |score|)."""

_OPSET: Final = 18
_ML_OPSET: Final = 3
_IR_VERSION: Final = 9

# Objectives whose prediction is the plain sum of the leaves; others apply a link function after it.
_SUM_OBJECTIVES: Final = frozenset(
    {"lambdarank", "rank_xendcg", "regression", "regression_l1", "huber", "fair", "quantile", "mape"}
)
# LightGBM reads any |x| up to kZeroThreshold (include/LightGBM/meta.h) as 0 before it walks the trees.
_ZERO_EDGE: Final = np.float32(1e-35)
# As float64: NumPy compares a Python float with a float32 in float32.
_ZERO_THRESHOLD: Final = float(_ZERO_EDGE)
# dump_model writes the threshold +inf (NaN against all the rest) as this number, because JSON has no infinity.
_DUMPED_INFINITY: Final = 1e300
_GATE_SEED: Final = 20261123
_GATE_ROWS: Final = 4096
_MISSING_SHARE: Final = 0.05


class UnsupportedRankerError(RecommndrError):
    """The model uses something that has no exact ONNX counterpart; the message names the training parameter."""


class ExportGateError(RecommndrError):
    """An exported ranker does not score or order as its LightGBM model does; it must not be published."""


@dataclass(frozen=True, slots=True)
class Split:
    """One internal node: float64 threshold, as LightGBM holds it; children are nodes of ``dump_model``."""

    feature: int
    threshold: float
    nan_is_missing: bool
    default_left: bool
    left: Mapping[str, Any]
    right: Mapping[str, Any]

    @property
    def nan_goes_left(self) -> bool:
        """Where NaN goes: the learned direction if the split knows missing values, else where 0 goes."""
        return self.default_left if self.nan_is_missing else self.threshold >= 0.0


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


def float32_threshold(threshold: float) -> np.float32:
    """The float32 with which ``x <= threshold`` decides every float32 x as LightGBM decides it.

    Rounds down; thresholds within LightGBM's zero range are moved to its edge, because it reads all of that range
    as 0 and ONNX Runtime does not.
    """
    if 0.0 <= threshold <= _ZERO_THRESHOLD:
        return _ZERO_EDGE
    if -_ZERO_THRESHOLD <= threshold < 0.0:
        return _neighbour(-_ZERO_EDGE, -np.inf)
    with np.errstate(over="ignore", under="ignore"):
        nearest = np.float32(threshold)
    return _neighbour(nearest, -np.inf) if float(nearest) > threshold else nearest


def _neighbour(value: np.float32, towards: float) -> np.float32:
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(np.nextafter(value, np.float32(towards)))


def export_ranker(booster: lgb.Booster, feature_names: Sequence[str]) -> bytes:
    """Converts a LightGBM ranking or regression model (up to its best iteration) to a serialized ONNX model.

    Input "features" float32 [None, F], output "score" float32 [None, 1]; the feature names stand in the model's
    metadata under "feature_names" as a JSON list. Every split decides as LightGBM's for every float32 value, NaN and
    infinities included; leaves and their sums are float32, so that labels of a regression should be of unit scale
    (the gate refuses sums that lose too much). Raises ``UnsupportedRankerError`` for categorical splits,
    ``zero_as_missing``, linear trees, averaged (rf) or multi-output models and objectives with a link function, and
    ``SchemaMismatch`` if the names are not those the model was trained on.
    """
    model = booster.dump_model()
    _refuse_unsupported(model)
    _check_names(booster, feature_names)
    node = helper.make_node(
        "TreeEnsembleRegressor", ["features"], ["score"], domain="ai.onnx.ml", **_tree_attributes(model["tree_info"])
    )
    graph = helper.make_graph(
        [node],
        "ranker",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(feature_names)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
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


def compare_scores(booster: lgb.Booster, onnx_bytes: bytes, features: NDArray[np.float32]) -> ScoreComparison:
    """Scores float32 features [n, F] with both models, the ONNX one as serving does, and counts the differences."""
    expected = np.asarray(booster.predict(features, num_threads=1), dtype=np.float64)
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


def check_export(booster: lgb.Booster, onnx_bytes: bytes, features: NDArray[np.float32]) -> ExportReport:
    """The gate of every export: float32 features [n, F], and rows on the thresholds, score and rank alike.

    Every split is tried on both sides of its threshold. Raises ``ExportGateError`` on a score difference above
    ``SCORE_TOLERANCE`` x max(1, |score|), or if two rows further apart than that change places or tie.
    """
    splits = sum(tree["num_leaves"] - 1 for tree in booster.dump_model()["tree_info"])
    adversarial = on_threshold_rows(booster, np.random.default_rng(_GATE_SEED), max(_GATE_ROWS, 2 * splits))
    report = ExportReport(
        given=compare_scores(booster, onnx_bytes, features),
        on_threshold=compare_scores(booster, onnx_bytes, adversarial),
    )
    if not (report.given.exact and report.on_threshold.exact):
        raise ExportGateError(
            f"The ONNX model does not rank as LightGBM does: on the given rows {report.given}, on threshold rows "
            f"{report.on_threshold}. Do not publish it; export with export_ranker and train on float32 features."
        )
    return report


def on_threshold_rows(booster: lgb.Booster, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Adversarial float32 rows [count, F]: the float32 values below, on and above split thresholds, and integers.

    Rows come in pairs, each pair aimed at one split: its features are set so that the walk reaches the split, then
    to the last value that goes left and the first that goes right. With count >= 2 x splits every split is tried.
    Columns that do not matter on the way hold random such values, some NaN.
    """
    model = booster.dump_model()
    splits = [placed for tree in model["tree_info"] for placed in _splits_with_bounds(tree["tree_structure"])]
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
                float32_threshold(split.threshold) if row % 2 == 0 else _first_right(split.threshold)
            )
    return rows


def _refuse_unsupported(model: Mapping[str, Any]) -> None:
    objective = str(model.get("objective", "")).split()
    if not objective or objective[0] not in _SUM_OBJECTIVES or "sqrt" in objective:
        raise UnsupportedRankerError(
            f"The objective {' '.join(objective)!r} is not a plain sum of leaves; train with lambdarank or regression."
        )
    if not model["tree_info"]:
        raise UnsupportedRankerError("The model has no trees; train at least one.")
    if model["num_tree_per_iteration"] != 1:
        raise UnsupportedRankerError("The model has several outputs; a ranker has one score.")
    if model["average_output"]:
        raise UnsupportedRankerError("The model averages its trees (boosting=rf); train with boosting=gbdt.")
    for tree in model["tree_info"]:
        for node in _walk(tree["tree_structure"]):
            _refuse_unsupported_node(node, tree["tree_index"])


def _refuse_unsupported_node(node: Mapping[str, Any], tree: int) -> None:
    if "leaf_coeff" in node:
        raise UnsupportedRankerError("The model has linear leaves; train with linear_tree=false.")
    if "split_feature" not in node:
        return
    if node["decision_type"] != "<=":
        raise UnsupportedRankerError(
            f"Tree {tree} splits feature {node['split_feature']} as a category; encode it as numbers and leave "
            "categorical_feature empty."
        )
    if node["missing_type"] not in ("None", "NaN"):
        raise UnsupportedRankerError(
            f"Tree {tree} reads 0 as missing in feature {node['split_feature']}; train with zero_as_missing=false."
        )


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
        nodes = list(_walk(tree["tree_structure"]))
        # dump_model makes one dict a node and `trees` keeps them alive, so identity names a node.
        number = {id(node): position for position, node in enumerate(nodes)}
        for node_id, node in enumerate(nodes):
            split = _read_split(node)
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


def _walk(root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The nodes of one dumped tree, parents first, left before right."""
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        if "split_feature" in node:
            pending += [node["right_child"], node["left_child"]]


def _read_split(node: Mapping[str, Any]) -> Split | None:
    if "split_feature" not in node:
        return None
    threshold = float(node["threshold"])
    return Split(
        feature=int(node["split_feature"]),
        threshold=threshold if abs(threshold) < _DUMPED_INFINITY else math.copysign(math.inf, threshold),
        nan_is_missing=node["missing_type"] == "NaN",
        default_left=bool(node["default_left"]),
        left=node["left_child"],
        right=node["right_child"],
    )


def _splits_with_bounds(root: Mapping[str, Any]) -> Iterator[tuple[Split, dict[int, np.float32]]]:
    """Each split of a dumped tree with values, on the edge of what is allowed, that lead a row to it."""
    pending: list[tuple[Mapping[str, Any], dict[int, tuple[float, float]]]] = [(root, {})]
    while pending:
        node, ranges = pending.pop()
        split = _read_split(node)
        if split is None:
            continue
        yield (
            split,
            {
                feature: float32_threshold(high) if high < np.inf else _first_right(low)
                for feature, (low, high) in ranges.items()
            },
        )
        low, high = ranges.get(split.feature, (-np.inf, np.inf))
        pending.append((split.left, {**ranges, split.feature: (low, min(high, split.threshold))}))
        pending.append((split.right, {**ranges, split.feature: (max(low, split.threshold), high)}))


def _first_right(threshold: float) -> np.float32:
    """The smallest float32 that goes right; nothing but NaN lies right of an infinite threshold."""
    return np.float32(np.nan) if threshold == np.inf else _neighbour(float32_threshold(threshold), np.inf)


def _boundary_values(thresholds: Sequence[float]) -> NDArray[np.float32]:
    values = [*range(-2, 12)]
    for threshold in thresholds:
        last_left = float32_threshold(threshold)
        values += [_neighbour(last_left, -np.inf), last_left, _first_right(threshold)]
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
