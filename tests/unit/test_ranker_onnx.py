import itertools
import json
from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from batch.models.dumped_trees import UnsupportedRankerError, float32_threshold
from batch.models.ranker_onnx import (
    SCORE_TOLERANCE,
    ExportGateError,
    check_export,
    compare_scores,
    export_ranker,
    on_threshold_rows,
)
from shared.errors import SchemaMismatch
from shared.ranking.scorer import OnnxScorer

FEATURES = 8
ROWS = 2000
NAMES = [f"feature_{column}" for column in range(FEATURES)]
QUIET: dict[str, Any] = {
    "objective": "lambdarank",
    "num_leaves": 31,
    "min_data_in_leaf": 5,
    "verbose": -1,
    "num_threads": 1,
    "seed": 1,
    "deterministic": True,
}

Float32Rows = NDArray[np.float32]


def continuous(rng: np.random.Generator, rows: int) -> Float32Rows:
    return rng.normal(size=(rows, FEATURES)).astype(np.float32)


def with_missing(rng: np.random.Generator, rows: int) -> Float32Rows:
    values = continuous(rng, rows)
    values[rng.random(values.shape) < 0.2] = np.nan
    return values


def small_integers(rng: np.random.Generator, rows: int) -> Float32Rows:
    return rng.integers(-20, 20, size=(rows, FEATURES)).astype(np.float32)


def large_integers(rng: np.random.Generator, rows: int) -> Float32Rows:
    # From 2**23 on, float32 has no room between neighbouring integers: every value sits next to a threshold.
    return (2**23 + rng.integers(0, 200, size=(rows, FEATURES))).astype(np.float32)


def mixed(rng: np.random.Generator, rows: int) -> Float32Rows:
    return np.where(np.arange(FEATURES) % 2 == 0, with_missing(rng, rows), small_integers(rng, rows))


Maker = Callable[[np.random.Generator, int], Float32Rows]
MAKERS: list[Maker] = [continuous, with_missing, small_integers, large_integers, mixed]


def make_labels(features: Float32Rows, rng: np.random.Generator) -> NDArray[np.int64]:
    exact = features.astype(np.float64)
    scaled = np.nan_to_num((exact - np.nanmean(exact, axis=0)) / np.nanstd(exact, axis=0))
    utility = scaled[:, 0] + scaled[:, 1] * scaled[:, 2] + np.isnan(features[:, 4]) + 0.3 * rng.normal(size=len(scaled))
    return np.digitize(utility, np.quantile(utility, [0.6, 0.85, 0.95]))


def train(make: Maker, trees: int, **parameters: Any) -> lgb.Booster:
    rng = np.random.default_rng(7)
    features = make(rng, ROWS)
    data = lgb.Dataset(features, make_labels(features, rng), group=[50] * (ROWS // 50), feature_name=NAMES)
    return lgb.train(QUIET | parameters, data, trees)


def convert_stock(booster: lgb.Booster) -> bytes:
    shape = [("features", FloatTensorType([None, FEATURES]))]
    model = convert_lightgbm(booster, initial_types=shape, zipmap=False, target_opset=15)
    serialized: bytes = model.SerializeToString()
    return serialized


@pytest.mark.parametrize("make", MAKERS)
def test_export_passes_the_gate(make: Maker) -> None:
    booster = train(make, 60)
    report = check_export(booster, export_ranker(booster, NAMES), make(np.random.default_rng(8), 1000))
    assert report.given.rows == 1000
    assert report.on_threshold.rows >= 2 * 60 * 10
    assert max(report.given.max_error, report.on_threshold.max_error) <= SCORE_TOLERANCE


@pytest.mark.parametrize("make", [continuous, with_missing, large_integers, mixed])
def test_stock_conversion_fails_the_gate(make: Maker) -> None:
    booster = train(make, 60)
    stock = convert_stock(booster)
    with pytest.raises(ExportGateError, match="does not rank as LightGBM"):
        check_export(booster, stock, make(np.random.default_rng(8), 1000))
    on_threshold = compare_scores(booster, stock, on_threshold_rows(booster, np.random.default_rng(9), 2000))
    assert on_threshold.wrong_rows > 200
    assert on_threshold.misordered_rows > 200


@pytest.mark.parametrize("trees", [1, 300])
def test_number_of_trees(trees: int) -> None:
    booster = train(mixed, trees)
    exported = export_ranker(booster, NAMES)
    check_export(booster, exported, mixed(np.random.default_rng(8), 1000))
    attributes = {attribute.name: attribute for attribute in onnx.load_from_string(exported).graph.node[0].attribute}
    assert len(set(attributes["nodes_treeids"].ints)) == trees


def test_tree_of_one_leaf() -> None:
    booster = train(continuous, 1, objective="regression", min_data_in_leaf=ROWS)
    assert [tree["num_leaves"] for tree in booster.dump_model()["tree_info"]] == [1]
    exported = export_ranker(booster, NAMES)
    check_export(booster, exported, continuous(np.random.default_rng(8), 100))
    assert abs(float(OnnxScorer(exported).score(np.zeros((1, FEATURES), np.float32))[0])) > 0.1


def test_trees_of_one_leaf_among_others() -> None:
    """A lambdarank model whose middle tree has been emptied, as LightGBM writes it."""
    text = train(continuous, 3).model_to_string()
    before, middle, after = text.partition("Tree=1\n")[0], "Tree=1\n", text[text.index("Tree=2\n") :]
    empty = f"{middle}num_leaves=1\nnum_cat=0\nleaf_value=0.25\nis_linear=0\nshrinkage=1\n\n\n"
    booster = lgb.Booster(model_str=_with_tree_sizes(before + empty + after))
    assert [tree["num_leaves"] for tree in booster.dump_model()["tree_info"]] == [31, 1, 31]
    check_export(booster, export_ranker(booster, NAMES), continuous(np.random.default_rng(8), 500))


def _with_tree_sizes(text: str) -> str:
    starts = [text.index(f"Tree={tree}\n") for tree in range(3)] + [text.index("end of trees")]
    sizes = " ".join(str(end - start) for start, end in itertools.pairwise(starts))
    return "\n".join(f"tree_sizes={sizes}" if line.startswith("tree_sizes=") else line for line in text.split("\n"))


def test_early_stopped_model_exports_its_best_iteration() -> None:
    rng = np.random.default_rng(7)
    features = continuous(rng, ROWS)
    group = [50] * (ROWS // 50)
    training = lgb.Dataset(features, rng.integers(0, 4, ROWS), group=group, feature_name=NAMES)
    held_out = lgb.Dataset(continuous(rng, ROWS), rng.integers(0, 4, ROWS), group=group, reference=training)
    stop = lgb.early_stopping(20, verbose=False)
    booster = lgb.train(QUIET, training, 200, valid_sets=[held_out], callbacks=[stop], keep_training_booster=True)
    assert 0 < booster.best_iteration < booster.num_trees()
    rows = continuous(rng, 500)
    exported = export_ranker(booster, NAMES)
    check_export(booster, exported, rows)
    best = np.asarray(booster.predict(rows, num_iteration=booster.best_iteration))
    every = np.asarray(booster.predict(rows, num_iteration=booster.num_trees()))
    scores = OnnxScorer(exported).score(rows)
    assert np.abs(scores - best).max() < 1e-5
    assert np.abs(scores - every).max() > 1e-3


def test_missing_values_unknown_to_training_read_as_zero() -> None:
    booster = train(continuous, 40)
    rows = with_missing(np.random.default_rng(8), 1000)
    exported = export_ranker(booster, NAMES)
    check_export(booster, exported, rows)
    scorer = OnnxScorer(exported)
    np.testing.assert_array_equal(scorer.score(rows), scorer.score(np.nan_to_num(rows)))


def test_split_of_missing_against_all_the_rest_has_an_infinite_threshold() -> None:
    rng = np.random.default_rng(7)
    features = with_missing(rng, ROWS)
    data = lgb.Dataset(features, np.isnan(features[:, 0]).astype(np.float64), feature_name=NAMES)
    booster = lgb.train(QUIET | {"objective": "regression", "learning_rate": 1.0, "num_leaves": 2}, data, 1)
    assert "threshold=inf" in booster.model_to_string()
    rows = np.zeros((5, FEATURES), dtype=np.float32)
    rows[:, 0] = [0.0, 3e38, np.inf, -np.inf, np.nan]
    exported = export_ranker(booster, NAMES)
    check_export(booster, exported, rows)
    assert OnnxScorer(exported).score(rows).round().tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_values_that_lightgbm_reads_as_zero() -> None:
    rng = np.random.default_rng(7)
    features = rng.choice(np.asarray([-1.0, 0.0, 1.0], dtype=np.float32), size=(ROWS, FEATURES))
    data = lgb.Dataset(features, features[:, 0] + 2.0 * (features[:, 1] > 0), feature_name=NAMES)
    booster = lgb.train(QUIET | {"objective": "regression"}, data, 20)
    thresholds = [line for line in booster.model_to_string().split("\n") if line.startswith("threshold=")]
    assert any("-1.00000001800250" in line for line in thresholds)
    edge = np.float32(1e-35)
    around = [0.0, edge, np.nextafter(edge, np.float32(1)), np.nextafter(edge, np.float32(0)), 1e-38, 1e-45, 1e-30]
    values = np.asarray([*around, *(-value for value in around)], dtype=np.float32)
    rows = rng.choice(values, size=(2000, FEATURES))
    assert compare_scores(booster, export_ranker(booster, NAMES), rows).exact


@pytest.mark.parametrize("exact", [0.1, -0.1, 23.500000000000004, 16777217.5, -16777217.5, 1e300, -1e300, 1e-50, 5e-36])
def test_float32_threshold_decides_as_the_float64_threshold(exact: float) -> None:
    chosen = float32_threshold(exact)
    nearby = np.asarray([chosen, np.float32(exact) if abs(exact) < 1e38 else np.float32(np.inf)], dtype=np.float32)
    with np.errstate(over="ignore"):
        neighbours = [np.nextafter(nearby, np.float32(side)) for side in (-np.inf, np.inf)]
    candidates = np.concatenate([nearby, *neighbours, np.zeros(1, np.float32)])
    read_by_lightgbm = np.where(np.abs(candidates) <= np.float32(1e-35), 0.0, candidates.astype(np.float64))
    np.testing.assert_array_equal(candidates <= chosen, read_by_lightgbm <= exact)


def test_threshold_rows_are_values_next_to_thresholds_and_integers() -> None:
    booster = train(mixed, 5)
    rows = on_threshold_rows(booster, np.random.default_rng(1), 400)
    assert rows.shape == (400, FEATURES)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, on_threshold_rows(booster, np.random.default_rng(1), 400))
    frame = booster.trees_to_dataframe()
    for column in range(FEATURES):
        exact = frame.loc[frame["split_feature"] == NAMES[column], "threshold"].to_numpy(dtype=np.float64)
        on = np.asarray([float32_threshold(threshold) for threshold in exact], dtype=np.float32)
        with np.errstate(over="ignore"):
            neighbours = [np.nextafter(on, np.float32(side)) for side in (-np.inf, np.inf)]
        allowed = np.concatenate([on, *neighbours])
        values = rows[:, column]
        plain = np.isnan(values) | (values == np.round(values))
        assert np.isin(values[~plain], allowed).all()


def test_threshold_rows_reach_both_sides_of_every_split() -> None:
    """Moving any one threshold of the export by one float32 step must fail the gate."""
    booster = train(continuous, 2, num_leaves=10)
    model = onnx.load_from_string(export_ranker(booster, NAMES))
    attributes = {attribute.name: attribute for attribute in model.graph.node[0].attribute}
    modes, values = attributes["nodes_modes"].strings, attributes["nodes_values"].floats
    rows = continuous(np.random.default_rng(8), 10)
    for node in [position for position, mode in enumerate(modes) if mode == b"BRANCH_LEQ"]:
        for side in (-np.inf, np.inf):
            kept = values[node]
            values[node] = float(np.nextafter(np.float32(kept), np.float32(side)))
            with pytest.raises(ExportGateError):
                check_export(booster, model.SerializeToString(), rows)
            values[node] = kept


def test_gate_fails_on_a_score_that_is_off_everywhere() -> None:
    booster = train(continuous, 10)
    model = onnx.load_from_string(export_ranker(booster, NAMES))
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("base_values", [3e-5]))
    rows = continuous(np.random.default_rng(8), 100)
    comparison = compare_scores(booster, model.SerializeToString(), rows)
    assert comparison.wrong_rows == 100
    assert comparison.misordered_rows == 0
    with pytest.raises(ExportGateError):
        check_export(booster, model.SerializeToString(), rows)


def test_gate_fails_where_float32_sums_lose_too_much() -> None:
    """Labels in the thousands around a score of zero: the leaves cancel, and float32 keeps too few digits of them."""
    rng = np.random.default_rng(7)
    features = continuous(rng, ROWS)
    data = lgb.Dataset(features, 1e4 * features.sum(axis=1), feature_name=NAMES)
    booster = lgb.train(QUIET | {"objective": "regression"}, data, 100)
    with pytest.raises(ExportGateError):
        check_export(booster, export_ranker(booster, NAMES), features)


def test_constant_score_is_misordered() -> None:
    booster = train(continuous, 10)
    model = onnx.load_from_string(export_ranker(booster, NAMES))
    weights = next(each for each in model.graph.node[0].attribute if each.name == "target_weights").floats
    weights[:] = [0.0] * len(weights)
    rows = continuous(np.random.default_rng(8), 100)
    assert compare_scores(booster, model.SerializeToString(), rows).misordered_rows > 90


def test_exported_model_describes_itself_and_is_deterministic() -> None:
    booster = train(continuous, 3)
    exported = export_ranker(booster, NAMES)
    assert exported == export_ranker(booster, NAMES)
    model = onnx.load_from_string(exported)
    assert {each.key: json.loads(each.value) for each in model.metadata_props} == {"feature_names": NAMES}
    assert [each.name for each in model.graph.input] == ["features"]
    assert [each.name for each in model.graph.output] == ["score"]


@pytest.mark.parametrize("names", [NAMES[:-1], list(reversed(NAMES)), [*NAMES, "one_more"]])
def test_feature_names_of_another_training_set_are_refused(names: list[str]) -> None:
    with pytest.raises(SchemaMismatch, match="trained on"):
        export_ranker(train(continuous, 1), names)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"zero_as_missing": True}, "zero_as_missing"),
        ({"objective": "regression", "linear_tree": True}, "linear_tree"),
        ({"objective": "regression", "reg_sqrt": True}, "plain sum"),
        ({"objective": "poisson"}, "plain sum"),
        ({"objective": "multiclass", "num_class": 4}, "plain sum"),
        ({"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "averages"),
    ],
)
def test_models_without_an_exact_counterpart_are_refused(parameters: dict[str, Any], message: str) -> None:
    def counts(rng: np.random.Generator, rows: int) -> Float32Rows:
        return np.abs(small_integers(rng, rows))

    booster = train(counts, 5, **parameters)
    with pytest.raises(UnsupportedRankerError, match=message):
        export_ranker(booster, NAMES)


def test_categorical_splits_are_refused() -> None:
    rng = np.random.default_rng(7)
    features = np.abs(small_integers(rng, ROWS))
    data = lgb.Dataset(features, features[:, 0] % 3, feature_name=NAMES, categorical_feature=[0])
    booster = lgb.train(QUIET | {"objective": "regression"}, data, 3)
    with pytest.raises(UnsupportedRankerError, match="category"):
        export_ranker(booster, NAMES)


def test_model_without_trees_is_refused() -> None:
    untrained = lgb.Booster(QUIET, lgb.Dataset(np.ones((100, FEATURES)), np.ones(100), group=[100]))
    with pytest.raises(UnsupportedRankerError, match="no trees"):
        export_ranker(untrained, NAMES)
