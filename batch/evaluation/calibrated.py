"""How true the probabilities are that a ranker's scores are read as."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from batch.evaluation.page_view import View
from batch.evaluation.rankings import Score
from batch.evaluation.report import Calibration, Reliability
from batch.models.calibration import calibrate, drawn_weights

_EDGES: Final = np.array([0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
"""Of the bins: a page has hundreds of candidates and few hits, so most probabilities are small."""


def measure_calibration(held_out: View, test: View, score: Score) -> Calibration:
    """Fit on label pages of users the ranker did not learn from, judge on test pages: Brier score and reliability.

    The expected calibration error is the mean over candidates of the distance between what their bin says on average
    and the share of it that came true (Naeini et al., 2015).
    """
    table = calibrate(*_said(held_out, score))
    scores, hit, _ = _said(test, score)
    said = table.probability(scores)
    bin_of = np.clip(np.searchsorted(_EDGES, said, side="right") - 1, 0, len(_EDGES) - 2)
    bins = []
    for number in np.unique(bin_of).tolist():
        within = bin_of == number
        bins.append(Reliability(int(within.sum()), float(said[within].mean()), float(hit[within].mean())))
    error = sum(one.rows * abs(one.said - one.came) for one in bins) / len(said)
    return Calibration(float(np.mean((said - hit) ** 2)), float(error), bins)


def _said(view: View, score: Score) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Scores, hits, and what each row stands for where candidates were drawn."""
    scores, hits, weights = [], [], []
    for block in view.blocks():
        scores.append(score(block.features).astype(np.float64))
        hits.append(np.asarray(view.pages.positive[block.rows]))
        graded = np.asarray(view.pages.label[block.rows]) > 0
        weights.append(drawn_weights(graded, block.there.sum(axis=1), np.asarray(view.pages.candidates[block.queries])))
    return np.concatenate(scores), np.concatenate(hits), np.concatenate(weights)
