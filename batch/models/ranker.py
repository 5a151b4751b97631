"""The ranker: a small, regularised LambdaMART (Burges: From RankNet to LambdaRank to LambdaMART, 2010) by LightGBM."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from shared.errors import ConfigurationError
from shared.features.vector import SMALLEST

_TOP: Final = 20


@dataclass(frozen=True, slots=True)
class RankerParams:
    """How LambdaMART is trained; the defaults hold back, because larger ensembles only learnt noise and serve slower.

    label_gain: gain of each label from 0; truncation: positions from the top whose pairs count.
    """

    leaves: int = 15
    trees: int = 150
    learning_rate: float = 0.08
    feature_fraction: float = 0.5
    lambda_l2: float = 10.0
    min_data_in_leaf: int = 50
    max_bin: int = 63
    label_gain: tuple[float, ...] = (0.0, 1.0)
    truncation: int = 30
    patience: int = 20
    seed: int = 0
    threads: int = max(1, (os.process_cpu_count() or 2) // 2)


@dataclass(frozen=True, slots=True)
class RankingRows:
    """Rows to rank: features float32 [n, F], labels [n] (integers from 0), groups [q] (rows of each query in turn)."""

    features: NDArray[np.float32]
    labels: NDArray[np.integer]
    groups: NDArray[np.integer]

    def checked(self) -> RankingRows:
        """Itself; raises ConfigurationError when the sizes do not go together or the features are not float32."""
        rows = len(self.features)
        if self.features.ndim != 2 or self.features.dtype != np.float32:
            raise ConfigurationError(f"The ranker takes float32 features [n, F], not {self.features.dtype}.")
        if len(self.labels) != rows or int(self.groups.sum()) != rows:
            raise ConfigurationError(
                f"{rows} rows of features, {len(self.labels)} labels and groups of {int(self.groups.sum())} rows "
                "do not go together."
            )
        return self


def train_ranker(
    training: RankingRows,
    held_out: RankingRows,
    *,
    params: RankerParams | None = None,
    feature_names: list[str] | None = None,
) -> lgb.Booster:
    """LambdaMART on the training queries, stopped when NDCG@20 on the held-out ones has not risen for `patience` trees.

    The held-out queries must be other users', or the ranker learns users by heart. The booster keeps its best iteration
    alone. Features and model are float32-safe for export: |x| < 1e-30 becomes 0, no categorical features, zero is no
    missing value. The same seed and rows give the same trees. Raises ConfigurationError on sizes that do not match or
    training rows without a positive.
    """
    params = params or RankerParams()
    if not np.any(training.checked().labels > 0):
        raise ConfigurationError("No training row has a positive label; candidates and label period do not meet.")
    names: Any = feature_names or "auto"
    train_set = lgb.Dataset(
        flush_tiny(training.features),
        label=training.labels,
        group=training.groups,
        feature_name=names,
        categorical_feature=[],
        params=_dataset_params(params),
        free_raw_data=True,
    )
    valid_set = train_set.create_valid(
        flush_tiny(held_out.checked().features), label=held_out.labels, group=held_out.groups
    )
    booster = lgb.train(
        {**_dataset_params(params), **_training_params(params)},
        train_set,
        num_boost_round=params.trees,
        valid_sets=[valid_set],
        valid_names=["held_out"],
        callbacks=[lgb.early_stopping(params.patience, verbose=False)],
    )
    best = booster.best_iteration or booster.current_iteration()
    # Without the trees after the best, every reader of the model (dump_model, the export) sees the same one.
    kept = lgb.Booster(model_str=booster.model_to_string(num_iteration=best))
    kept.best_score = booster.best_score
    return kept


def flush_tiny(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy in which |x| < 1e-30 is 0: LightGBM snaps such values to 0 and ONNX Runtime does not."""
    return np.where(np.abs(features) < SMALLEST, np.float32(0), features)


def _dataset_params(params: RankerParams) -> dict[str, Any]:
    return {
        "max_bin": params.max_bin,
        "min_data_in_leaf": params.min_data_in_leaf,
        "zero_as_missing": False,
        "force_row_wise": True,
        "deterministic": True,
        "seed": params.seed,
        "num_threads": params.threads,
        "verbosity": -1,
    }


def _training_params(params: RankerParams) -> dict[str, Any]:
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [_TOP],
        "label_gain": list(params.label_gain),
        "lambdarank_truncation_level": params.truncation,
        "num_leaves": params.leaves,
        "learning_rate": params.learning_rate,
        "feature_fraction": params.feature_fraction,
        "lambda_l2": params.lambda_l2,
    }
