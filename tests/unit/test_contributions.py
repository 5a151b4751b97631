"""Contributions equal LightGBM's own, on ordinary rows and on rows that sit on thresholds, and add up to the score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from numpy.typing import NDArray

from batch.models.dumped_trees import UnsupportedRankerError
from batch.models.ranker_onnx import ExportGateError, export_ranker, on_threshold_rows
from batch.models.ranker_trees import check_contributions, tree_paths
from shared.errors import CorruptRecord, SchemaMismatch
from shared.ranking.contributions import TreePaths
from shared.ranking.scorer import OnnxScorer

FEATURES = 12
QUIET: dict[str, Any] = {
    "objective": "lambdarank", "num_leaves": 31, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, "seed": 1,
}  # fmt: skip


def rows_of(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Numbers, integers that sit on thresholds, and holes."""
    rows = rng.normal(size=(count, FEATURES)).astype(np.float32)
    rows[:, ::2] = np.round(rows[:, ::2] * 3)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows


def train(trees: int, **parameters: Any) -> lgb.Booster:
    rng = np.random.default_rng(3)
    rows = rows_of(rng, 3000)
    filled = np.nan_to_num(rows.astype(np.float64))
    utility = filled[:, 0] + filled[:, 1] * filled[:, 3] + np.isnan(rows[:, 5]) + rng.normal(size=len(rows))
    labels = np.digitize(utility, [0.5, 1.5, 3.0])
    return lgb.train(QUIET | parameters, lgb.Dataset(rows, labels, group=[50] * 60), trees)


@pytest.fixture(scope="module")
def booster() -> lgb.Booster:
    return train(40)


def test_contributions_are_those_of_lightgbm(booster: lgb.Booster) -> None:
    rng = np.random.default_rng(4)
    edges = on_threshold_rows(booster, rng, 400)
    edges[:3] = np.array([np.inf, -np.inf, np.nan], np.float32)[:, None]
    paths = tree_paths(booster)
    assert int(paths.length.max()) >= 8, "long paths use many points"
    for rows in (rows_of(rng, 100), edges):
        expected = np.asarray(booster.predict(rows, pred_contrib=True, num_threads=1))
        found = paths.contributions(rows)
        np.testing.assert_allclose(found.values, expected[:, :-1], rtol=0, atol=1e-6)
        assert found.expected == pytest.approx(expected[0, -1], abs=1e-9)
        scores = np.asarray(booster.predict(rows, num_threads=1))
        np.testing.assert_allclose(found.values.sum(axis=1), scores - found.expected, rtol=0, atol=1e-9)


def test_contributions_add_up_to_the_score_that_serving_gives(booster: lgb.Booster) -> None:
    rows = rows_of(np.random.default_rng(5), 50)
    found = tree_paths(booster).contributions(rows)
    served = OnnxScorer(export_ranker(booster, booster.feature_name())).score(rows)
    np.testing.assert_allclose(found.values.sum(axis=1) + found.expected, served, rtol=0, atol=1e-5)


def test_paths_survive_as_bytes_and_equal_ones_give_equal_bytes(booster: lgb.Booster) -> None:
    paths = tree_paths(booster)
    data = paths.encode()
    again = TreePaths.decode(data)
    assert again.encode() == data == tree_paths(lgb.Booster(model_str=booster.model_to_string())).encode()
    rows = rows_of(np.random.default_rng(6), 7)
    np.testing.assert_array_equal(again.contributions(rows).values, paths.contributions(rows).values)
    with pytest.raises(CorruptRecord, match="cannot be read"):
        TreePaths.decode(data[:-30])
    with pytest.raises(CorruptRecord, match="cannot be read"):
        TreePaths.decode(b"no archive")


def test_rows_of_another_width_are_refused_and_no_rows_give_none(booster: lgb.Booster) -> None:
    paths = tree_paths(booster)
    with pytest.raises(SchemaMismatch, match="12 features"):
        paths.contributions(np.zeros((2, FEATURES + 1), np.float32))
    assert paths.contributions(np.zeros((0, FEATURES), np.float32)).values.shape == (0, FEATURES)


def test_a_tree_without_a_split_is_all_expectation() -> None:
    stump = train(1, objective="regression", min_data_in_leaf=3000)
    rows = rows_of(np.random.default_rng(7), 3)
    found = tree_paths(stump).contributions(rows)
    assert not found.values.any()
    assert found.expected == pytest.approx(float(np.asarray(stump.predict(rows))[0]))


def test_the_gate_refuses_paths_that_explain_otherwise(booster: lgb.Booster) -> None:
    paths = tree_paths(booster)
    rows = rows_of(np.random.default_rng(8), 20)
    assert check_contributions(booster, paths, rows) < 1e-9
    for broken in (
        replace(paths, nan_follows=~paths.nan_follows),
        replace(paths, share=paths.share**1.01),
        replace(paths, most=np.nextafter(paths.most, np.float32(-np.inf))),
    ):
        with pytest.raises(ExportGateError, match="explain scores otherwise"):
            check_contributions(booster, broken, rows)


def test_a_model_whose_nodes_count_no_rows_is_refused(booster: lgb.Booster) -> None:
    lines = booster.model_to_string().splitlines(keepends=True)
    edited = [
        "leaf_count=" + " ".join("0" for _ in line.split()) + "\n" if line.startswith("leaf_count=") else line
        for line in lines
    ]
    text = "".join(line for line in edited if not line.startswith("tree_sizes="))
    with pytest.raises(UnsupportedRankerError, match="no training row"):
        tree_paths(lgb.Booster(model_str=text))
