"""The ranker learns what decides, ignores what does not, stops early, repeats itself, and can be exported."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from batch.metrics import ndcg_at
from batch.models.ranker import RankerParams, flush_tiny, train_ranker
from batch.models.ranker_onnx import check_export, export_ranker
from batch.models.ranking_rows import RankingRows
from shared.errors import ConfigurationError

NAMES = ["signal", "noise_a", "noise_b", "weak"]
SMALL = RankerParams(min_data_in_leaf=20, trees=60, threads=1, seed=7)


def queries(count: int, seed: int, size: int = 20) -> RankingRows:
    """In each query one item is bought: most likely the one of the greatest signal."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count * size, 4)).astype(np.float32)
    taste = (2 * features[:, 0] + 0.3 * features[:, 3]).reshape(count, size) + generator.gumbel(size=(count, size))
    labels = np.zeros((count, size), dtype=np.int32)
    labels[np.arange(count), taste.argmax(axis=1)] = 1
    return RankingRows(features, labels.ravel(), np.full(count, size, dtype=np.int32))


def mean_ndcg(scores: NDArray[np.float64], rows: RankingRows, k: int = 5) -> float:
    size = int(rows.groups[0])
    order = np.argsort(-scores.reshape(-1, size), axis=1)
    hits = np.take_along_axis(rows.labels.reshape(-1, size), order, axis=1) > 0
    return float(ndcg_at(hits, hits.sum(axis=1), k).mean())


def test_it_learns_the_signal_and_is_small() -> None:
    booster = train_ranker(queries(300, 1), queries(100, 2), params=SMALL, feature_names=NAMES)
    fresh = queries(200, 3)
    learnt = mean_ndcg(np.asarray(booster.predict(fresh.features)), fresh)
    chance = mean_ndcg(np.random.default_rng(0).random(len(fresh.features)), fresh)
    assert learnt > 2 * chance
    assert learnt > 0.9 * mean_ndcg(fresh.features[:, 0].astype(np.float64), fresh)
    gain = dict(zip(booster.feature_name(), booster.feature_importance("gain"), strict=True))
    assert gain["signal"] > 5 * max(gain["noise_a"], gain["noise_b"])
    assert booster.num_trees() <= SMALL.trees
    assert all(tree["num_leaves"] <= SMALL.leaves for tree in booster.dump_model()["tree_info"])


def test_noise_alone_stops_early() -> None:
    noise = queries(200, 4)
    shuffled = RankingRows(noise.features, np.random.default_rng(0).permutation(noise.labels), noise.groups)
    other = queries(100, 5)
    held_out = RankingRows(other.features, np.random.default_rng(1).permutation(other.labels), other.groups)
    assert train_ranker(shuffled, held_out, params=SMALL).num_trees() < 40


def test_the_booster_holds_no_tree_beyond_its_best() -> None:
    booster = train_ranker(queries(200, 1), queries(60, 2), params=SMALL)
    rows = queries(10, 9).features
    every_tree = booster.predict(rows, num_iteration=booster.num_trees())
    assert np.array_equal(np.asarray(booster.predict(rows)), np.asarray(every_tree))
    assert booster.best_score["held_out"]["ndcg@20"] > 0


def test_the_same_seed_gives_the_same_trees_on_one_thread_and_two() -> None:
    text = [
        train_ranker(
            queries(100, 1), queries(40, 2), params=RankerParams(min_data_in_leaf=20, trees=20, threads=threads)
        )
        .model_to_string()
        .split("parameters:")[0]
        for threads in (1, 2, 2)
    ]
    assert text[0] == text[1] == text[2]


def test_export_passes_the_gate() -> None:
    booster = train_ranker(queries(200, 1), queries(60, 2), params=SMALL, feature_names=NAMES)
    report = check_export(booster, export_ranker(booster, NAMES), queries(50, 6).features)
    assert report.given.exact
    assert report.on_threshold.exact


def test_tiny_values_are_zero() -> None:
    values = np.array([[1e-31, -1e-38, 1e-29, -1e-29, 0, np.nan, np.inf]], dtype=np.float32)
    flushed = flush_tiny(values)
    assert flushed[0, :2].tolist() == [0, 0]
    assert np.array_equal(flushed[0, 2:], values[0, 2:], equal_nan=True)
    assert flushed.dtype == np.float32


def test_rows_that_do_not_go_together_are_refused() -> None:
    rows = queries(5, 1)
    with pytest.raises(ConfigurationError, match="100 rows of features, 99 labels"):
        train_ranker(RankingRows(rows.features, rows.labels[:-1], rows.groups), rows)
    with pytest.raises(ConfigurationError, match="float32"):
        train_ranker(RankingRows(rows.features.astype(np.float64), rows.labels, rows.groups), rows)
    with pytest.raises(ConfigurationError, match="positive"):
        train_ranker(RankingRows(rows.features, np.zeros_like(rows.labels), rows.groups), rows)
