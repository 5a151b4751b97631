"""The ranker at request time: an ONNX model on one thread."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from shared.errors import SchemaMismatch

_WARM_UP_ROWS = 200
_WARM_UP_RUNS = 3


class OnnxScorer:
    """Scores candidates with a ranker of one float32 input [None, feature_count] and one output.

    One thread and sequential execution: a request is too small to share out, and workers, not threads,
    fill the cores. Instances are safe to share between threads. Raises ``SchemaMismatch`` when the model has
    other than one input of a fixed number of float32 columns.
    """

    def __init__(self, model: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(shape) != 2 or not isinstance(shape[1], int):
            raise SchemaMismatch(
                "A ranker takes one float32 input of shape [None, F]; this model takes "
                f"{[(each.name, each.type, each.shape) for each in inputs]}. Export it with export_ranker."
            )
        self._input_name: str = inputs[0].name
        self._output_names: list[str] = [self._session.get_outputs()[0].name]
        self._feature_count: int = shape[1]

    @property
    def feature_count(self) -> int:
        """Number of columns the model was trained on."""
        return self._feature_count

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores float32 features [n, feature_count] as float32 [n], higher is better; n may be 0.

        Raises ``SchemaMismatch`` on another number of columns or another dtype: rounding float64 here would
        hide that training and serving round at different places.
        """
        if features.ndim != 2 or features.shape[1] != self._feature_count or features.dtype != np.float32:
            raise SchemaMismatch(
                f"The ranker takes float32 features [n, {self._feature_count}], not {features.dtype} "
                f"{list(features.shape)}. Serve it the feature schema of its own release."
            )
        if features.shape[0] == 0:
            return np.empty(0, dtype=np.float32)
        outputs = self._session.run(self._output_names, {self._input_name: np.ascontiguousarray(features)})
        scores: NDArray[np.float32] = np.asarray(outputs[0], dtype=np.float32).reshape(-1)
        return scores

    def warm_up(self) -> None:
        """Scores a few made-up requests, so that the first shopper does not pay for first-run allocations."""
        features = np.zeros((_WARM_UP_ROWS, self._feature_count), dtype=np.float32)
        for _ in range(_WARM_UP_RUNS):
            self.score(features)
