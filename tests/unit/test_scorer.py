import ast
import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper

from shared.errors import SchemaMismatch
from shared.ranking import scorer as scorer_module
from shared.ranking.scorer import OnnxScorer


def stump(feature_count: int | None = 3, dtype: int = TensorProto.FLOAT) -> bytes:
    """One tree: feature 1 <= 0.5 scores -1, else 2.5; NaN goes left."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["score"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[1, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[1, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[-1.0, 2.5],
        n_targets=1,
    )
    graph = helper.make_graph(
        [node],
        "stump",
        [helper.make_tensor_value_info("features", dtype, [None, feature_count])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    serialized: bytes = helper.make_model(graph, ir_version=9, opset_imports=opsets).SerializeToString()
    return serialized


def test_scores_by_row() -> None:
    scorer = OnnxScorer(stump())
    assert scorer.feature_count == 3
    scores = scorer.score(np.asarray([[9, 0.5, 9], [9, 0.75, 9], [9, np.nan, 9]], dtype=np.float32))
    assert scores.dtype == np.float32
    assert scores.shape == (3,)
    assert scores.tolist() == [-1.0, 2.5, -1.0]


def test_no_rows_score_to_nothing() -> None:
    scores = OnnxScorer(stump()).score(np.empty((0, 3), dtype=np.float32))
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


def test_any_memory_layout_scores_alike() -> None:
    rows = np.random.default_rng(0).random((50, 6)).astype(np.float32)
    view = rows[::-2, ::2]
    scorer = OnnxScorer(stump())
    expected = np.where(view[:, 1] <= 0.5, -1.0, 2.5).tolist()
    assert scorer.score(view).tolist() == expected
    assert scorer.score(np.asfortranarray(view)).tolist() == expected


@pytest.mark.parametrize(
    "features",
    [
        np.zeros((2, 2), dtype=np.float32),
        np.zeros((2, 4), dtype=np.float32),
        np.zeros((0, 4), dtype=np.float32),
        np.zeros(3, dtype=np.float32),
        np.zeros((2, 3), dtype=np.float64),
    ],
)
def test_features_of_another_schema_are_refused(features: np.ndarray) -> None:
    with pytest.raises(SchemaMismatch, match=r"\[n, 3\]"):
        OnnxScorer(stump()).score(features)


@pytest.mark.parametrize("model", [stump(feature_count=None), stump(dtype=TensorProto.DOUBLE)])
def test_models_that_are_no_rankers_are_refused(model: bytes) -> None:
    with pytest.raises(SchemaMismatch, match="export_ranker"):
        OnnxScorer(model)


def test_session_has_one_thread() -> None:
    options = OnnxScorer(stump())._session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.inter_op_num_threads == 1


def test_warm_up_leaves_scores_as_they_are() -> None:
    scorer = OnnxScorer(stump())
    row = np.asarray([[0.0, 1.0, 0.0]], dtype=np.float32)
    before = scorer.score(row).tolist()
    scorer.warm_up()
    assert scorer.score(row).tolist() == before == [2.5]


def test_threads_may_share_a_scorer() -> None:
    scorer = OnnxScorer(stump())
    batches = [np.random.default_rng(seed).random((40, 3)).astype(np.float32) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(scorer.score, batches))
    for batch, scores in zip(batches, shared, strict=True):
        np.testing.assert_array_equal(scores, np.where(batch[:, 1] <= 0.5, np.float32(-1.0), np.float32(2.5)))


def test_imports_only_numpy_onnxruntime_and_the_errors() -> None:
    tree = ast.parse(inspect.getsource(scorer_module))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"__future__", "numpy", "numpy.typing", "onnxruntime", "shared.errors"}
