"""Reads the trees of LightGBM's ``dump_model`` as LightGBM decides them, for features that are float32.

LightGBM compares the feature with a float64 threshold, ONNX Runtime with a float32 one. For float32 x and float64 t,
``x <= t`` holds exactly when ``x <= round_down(t)``, round_down(t) being the largest float32 not above t; rounding to
nearest (what onnxmltools does) sends x == nearest(t) > t the wrong way. The semantics of a split are those of
LightGBM's ``Tree::NumericalDecision`` (include/LightGBM/tree.h).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from shared.errors import RecommndrError

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


class UnsupportedRankerError(RecommndrError):
    """The model uses something that has no exact ONNX counterpart; the message names the training parameter."""


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


def float32_threshold(threshold: float) -> np.float32:
    """The float32 with which ``x <= threshold`` decides every float32 x as LightGBM decides it.

    Rounds down; thresholds within LightGBM's zero range are moved to its edge, because it reads all of that range
    as 0 and ONNX Runtime does not.
    """
    if 0.0 <= threshold <= _ZERO_THRESHOLD:
        return _ZERO_EDGE
    if -_ZERO_THRESHOLD <= threshold < 0.0:
        return neighbour(-_ZERO_EDGE, -np.inf)
    with np.errstate(over="ignore", under="ignore"):
        nearest = np.float32(threshold)
    return neighbour(nearest, -np.inf) if float(nearest) > threshold else nearest


def neighbour(value: np.float32, towards: float) -> np.float32:
    """The float32 next to `value` in the direction of `towards`."""
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(np.nextafter(value, np.float32(towards)))


def first_right(threshold: float) -> np.float32:
    """The smallest float32 that goes right; nothing but NaN lies right of an infinite threshold."""
    return np.float32(np.nan) if threshold == np.inf else neighbour(float32_threshold(threshold), np.inf)


def refuse_unsupported(model: Mapping[str, Any]) -> None:
    """Raises ``UnsupportedRankerError`` where ``export_ranker`` could not decide or sum as LightGBM does."""
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
        for node in walk(tree["tree_structure"]):
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


def walk(root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The nodes of one dumped tree, parents first, left before right."""
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        if "split_feature" in node:
            pending += [node["right_child"], node["left_child"]]


def read_split(node: Mapping[str, Any]) -> Split | None:
    """The split of one dumped node, an infinite threshold restored; None for a leaf."""
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


def splits_with_bounds(root: Mapping[str, Any]) -> Iterator[tuple[Split, dict[int, np.float32]]]:
    """Each split of a dumped tree with values, on the edge of what is allowed, that lead a row to it."""
    pending: list[tuple[Mapping[str, Any], dict[int, tuple[float, float]]]] = [(root, {})]
    while pending:
        node, ranges = pending.pop()
        split = read_split(node)
        if split is None:
            continue
        yield (
            split,
            {
                feature: float32_threshold(high) if high < np.inf else first_right(low)
                for feature, (low, high) in ranges.items()
            },
        )
        low, high = ranges.get(split.feature, (-np.inf, np.inf))
        pending.append((split.left, {**ranges, split.feature: (low, min(high, split.threshold))}))
        pending.append((split.right, {**ranges, split.feature: (max(low, split.threshold), high)}))
