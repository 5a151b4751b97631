"""What a ranker costs a request."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from batch.evaluation.page_view import View
from batch.evaluation.report import ServingCost
from shared.features.vector import Matrix
from shared.ranking.scorer import OnnxScorer

CANDIDATES: Final = 200
_RUNS: Final = 300


def serving_cost(name: str, model: bytes, rows: Matrix) -> ServingCost:
    """Median wall time of one call with `rows`, through ONNX on one thread, as a request makes it."""
    scorer = OnnxScorer(model)
    scorer.warm_up()
    taken = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        scorer.score(rows)
        taken.append(time.perf_counter() - started)
    return ServingCost(name, len(rows), round(1000 * float(np.median(taken)), 4), round(len(model) / 1024, 1))


def page_of_candidates(view: View) -> Matrix:
    """float32[CANDIDATES, F] rows of real pages, one page after another; the rows repeat where there are too few."""
    block = next(view.blocks())
    return np.ascontiguousarray(np.resize(block.features, (CANDIDATES, block.features.shape[1])))
