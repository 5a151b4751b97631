"""A LightGBM ranker's trees as the paths of their leaves, for explanations where LightGBM may not be imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from batch.models.dumped_trees import UnsupportedRankerError, float32_threshold, read_split, refuse_unsupported
from batch.models.ranker_onnx import ExportGateError, on_threshold_rows
from shared.ranking.contributions import TreePaths

CONTRIBUTION_TOLERANCE: Final = 1e-6
"""Largest difference to LightGBM's own contributions, times max(1, |score|)."""
_GATE_SEED: Final = 20261124
_GATE_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class _Condition:
    """What a path asks of one feature; `share` of the rows that reach its splits go along."""

    above: float = np.nan
    most: float = np.inf
    nan_follows: bool = True
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class _Leaf:
    value: float
    conditions: Mapping[int, _Condition] = field(default_factory=dict)


def tree_paths(booster: lgb.Booster) -> TreePaths:
    """The leaves of a ranking or regression model with their conditions, in a stable order.

    Raises UnsupportedRankerError for what `export_ranker` refuses, and for nodes that no training row reached.
    """
    model = booster.dump_model()
    refuse_unsupported(model)
    leaves = [leaf for tree in model["tree_info"] for leaf in _leaves(tree["tree_structure"])]
    placed = sorted((leaf for leaf in leaves if leaf.conditions), key=lambda leaf: len(leaf.conditions))
    conditions = [pair for leaf in placed for pair in sorted(leaf.conditions.items())]
    return TreePaths(
        value=np.array([leaf.value for leaf in placed], np.float64),
        length=np.array([len(leaf.conditions) for leaf in placed], np.int16),
        feature=np.array([feature for feature, _ in conditions], np.int16),
        above=np.array([one.above for _, one in conditions], np.float32),
        most=np.array([one.most for _, one in conditions], np.float32),
        nan_follows=np.array([one.nan_follows for _, one in conditions], np.bool_),
        share=np.array([one.share for _, one in conditions], np.float64),
        constant=np.array([sum(leaf.value for leaf in leaves if not leaf.conditions)], np.float64),
        features_count=np.array([booster.num_feature()], np.int64),
    )


def check_contributions(booster: lgb.Booster, paths: TreePaths, features: NDArray[np.float32]) -> float:
    """The largest difference to LightGBM's pred_contrib on these rows [n, F] and on rows that sit on thresholds.

    In units of max(1, |score|). Raises ExportGateError beyond the tolerance.
    """
    rows = np.vstack([features[:_GATE_ROWS], on_threshold_rows(booster, np.random.default_rng(_GATE_SEED), _GATE_ROWS)])
    expected = np.asarray(booster.predict(rows, pred_contrib=True, num_threads=1), dtype=np.float64)
    found = paths.contributions(rows)
    errors = np.abs(np.column_stack([found.values, np.full(len(rows), found.expected)]) - expected)
    error = float((errors.max(axis=1) / np.maximum(1.0, np.abs(expected.sum(axis=1)))).max(initial=0.0))
    if not error <= CONTRIBUTION_TOLERANCE:
        raise ExportGateError(f"the trees explain scores otherwise than LightGBM does, by {error:.1e}; do not publish")
    return error


def _leaves(root: Mapping[str, Any]) -> Iterator[_Leaf]:
    pending: list[tuple[Mapping[str, Any], dict[int, _Condition]]] = [(root, {})]
    while pending:
        node, path = pending.pop()
        split = read_split(node)
        if split is None:
            yield _Leaf(float(node["leaf_value"]), path)
            continue
        before = path.get(split.feature, _Condition())
        threshold = float(float32_threshold(split.threshold))
        here = _rows_of(node)
        left = replace(
            before,
            most=min(before.most, threshold),
            nan_follows=before.nan_follows and split.nan_goes_left,
            share=before.share * _rows_of(split.left) / here,
        )
        right = replace(
            before,
            above=float(np.fmax(before.above, threshold)),
            nan_follows=before.nan_follows and not split.nan_goes_left,
            share=before.share * _rows_of(split.right) / here,
        )
        pending += [(split.right, {**path, split.feature: right}), (split.left, {**path, split.feature: left})]


def _rows_of(node: Mapping[str, Any]) -> int:
    rows = int(node.get("internal_count", node.get("leaf_count", 0)))
    if rows < 1:
        raise UnsupportedRankerError("A node of the model counts no training row; train it, do not refit or edit it.")
    return rows
