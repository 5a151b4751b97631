"""What a ranker costs a request: milliseconds for 200 candidates on one core, the size of its model, its training."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from batch.models.rankers import LAMBDAMART, LOGIT, RankersParams, fit_rankers
from batch.models.trained_ranker import TrainedRanker
from local.page_comparison import percentile
from shared.cli import command
from shared.features.vector import Matrix
from shared.ranking.ranker_parts import RankerParts
from shared.ranking.scorer import OnnxScorer
from tests.unit.made_rankings import made_rankings

CANDIDATES: Final = 200
SHOWN: Final = 20


def measure(ranker: TrainedRanker, rows: Matrix, runs: int) -> dict[str, Any]:
    """Scoring of all rows and explaining of the first 20, in milliseconds."""
    model = ranker.to_onnx()
    scorer, parts = OnnxScorer(model), RankerParts.decode(ranker.parts().encode())
    scorer.warm_up()
    scored = timed(lambda: scorer.score(rows), runs)
    explained = timed(lambda: parts.contributions(rows[:SHOWN]), max(runs // 20, 5))
    return {
        "score_ms_p50": round(percentile(scored, 0.5), 3),
        "score_ms_p99": round(percentile(scored, 0.99), 3),
        "explain_ms_p50": round(percentile(explained, 0.5), 2),
        "model_kib": round(len(model) / 1024, 1),
        "trees": 0 if ranker.booster is None else ranker.booster.num_trees(),
    }


def timed(call: Callable[[], object], runs: int) -> list[float]:
    """Milliseconds of each of the calls."""
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - started))
    return taken


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print one JSON object a ranker."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rankers", description=__doc__)
    parser.add_argument("--pages", type=int, default=2_000, help="of 100 rows to train on, default %(default)s")
    parser.add_argument("--runs", type=int, default=2_000, help="default %(default)s")
    arguments = parser.parse_args(argv)
    training = made_rankings(arguments.pages, 1, size=100)[0]
    held_out = made_rankings(max(arguments.pages // 5, 10), 2, size=100)[0]
    rows = made_rankings(1, 3, size=CANDIDATES)[0].features
    for name, start in ((LOGIT, "zero"), (LAMBDAMART, "zero"), (LAMBDAMART, "logit")):
        params = RankersParams(start="logit" if start == "logit" else "zero")
        patient = replace(params, lambdamart=replace(params.lambdamart, patience=params.lambdamart.trees))
        started = time.perf_counter()
        ranker = fit_rankers(training, held_out, patient, names=(name,))[name]
        seconds = round(time.perf_counter() - started, 1)
        found = {"ranker": name, "start": start, "train_s": seconds, **measure(ranker, rows, arguments.runs)}
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(main())
