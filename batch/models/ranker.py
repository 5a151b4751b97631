"""The ranker: a small, regularised LambdaMART (Burges: From RankNet to LambdaRank to LambdaMART, 2010) by LightGBM."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from batch.models.ranking_rows import RankingRows, page_gains, starts_of, tie_order
from shared.errors import ConfigurationError
from shared.features.vector import SMALLEST

_TOP: Final = 20


@dataclass(frozen=True, slots=True)
class RankerParams:
    """How LambdaMART is trained; the defaults hold back, because larger ensembles only learnt noise and serve slower.

    truncation: positions from the top whose pairs count; popularity: may it read what says the same of an item to
    everyone.
    """

    leaves: int = 15
    trees: int = 100
    learning_rate: float = 0.08
    feature_fraction: float = 0.4
    lambda_l2: float = 20.0
    min_data_in_leaf: int = 200
    popularity: bool = True
    max_bin: int = 63
    truncation: int = 30
    patience: int = 20
    seed: int = 0
    threads: int = max(1, (os.process_cpu_count() or 2) // 2)


def train_ranker(
    training: RankingRows,
    held_out: RankingRows,
    *,
    params: RankerParams | None = None,
    label_gain: Sequence[float] = (0.0, 1.0),
    feature_names: list[str] | None = None,
    start: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    unread: Sequence[int] = (),
) -> lgb.Booster:
    """LambdaMART on the training queries, stopped when NDCG@20 on the held-out ones has not risen for `patience` trees.

    The held-out queries must be other users', or the ranker learns users by heart. The booster keeps its best iteration
    alone. Features and model are float32-safe for export: |x| < 1e-30 becomes 0, no categorical features, zero is no
    missing value. `label_gain` is the gain of each label from 0. With `start`, a score of each training and each
    held-out row, the trees learn what that score lacks and theirs has to be added to it; columns in `unread` are not
    split on. The same seed and rows give the same trees, in whatever order a page's rows stand. Raises
    ConfigurationError on sizes that do not match or training rows without a positive.
    """
    params = params or RankerParams()
    if not np.any(page_gains(training.checked(), label_gain) > 0):
        raise ConfigurationError("No training row has a positive label; candidates and label period do not meet.")
    order = tie_order(training)
    names: Any = feature_names or "auto"
    train_set = lgb.Dataset(
        _blanked(training.features[order], unread),
        label=training.labels[order],
        group=training.groups,
        weight=_page_weights(training, label_gain),
        init_score=None if start is None else start[0][order],
        feature_name=names,
        categorical_feature=[],
        params=_dataset_params(params),
        free_raw_data=True,
    )
    valid_set = train_set.create_valid(
        _blanked(held_out.checked().features, unread),
        label=held_out.labels,
        group=held_out.groups,
        weight=_page_weights(held_out, label_gain),
        init_score=None if start is None else start[1],
    )
    booster = lgb.train(
        {**_dataset_params(params), **_training_params(params), "label_gain": list(label_gain)},
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


def _page_weights(rows: RankingRows, label_gain: Sequence[float]) -> NDArray[np.float64] | None:
    """float64[n]: to each row what its page's positives weigh on average, so that a pair's two rows move alike."""
    if rows.weights is None:
        return None
    positive = np.asarray(label_gain)[rows.labels] > 0
    starts = starts_of(rows.groups)
    count = np.add.reduceat(positive.astype(np.float64), starts)
    total = np.add.reduceat(np.where(positive, rows.weights, 0.0), starts)
    return np.repeat(np.divide(total, count, out=np.ones_like(total), where=count > 0), rows.groups)


def _blanked(features: NDArray[np.float32], unread: Sequence[int]) -> NDArray[np.float32]:
    """A copy to train on, constant where no split may look."""
    values = flush_tiny(features)
    values[:, list(unread)] = 0.0
    return values


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
        "lambdarank_truncation_level": params.truncation,
        "num_leaves": params.leaves,
        "learning_rate": params.learning_rate,
        "feature_fraction": params.feature_fraction,
        "lambda_l2": params.lambda_l2,
    }
