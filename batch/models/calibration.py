"""From scores to probabilities: isotonic regression (Zadrozny and Elkan, 2002) on pages a ranker did not learn from."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from shared.errors import ConfigurationError
from shared.ranking.calibration import Calibration

MOST_KNOTS: Final = 256
"""A table is read at every request; of more knots every so many-th is kept."""


def calibrate(
    scores: NDArray[np.floating], hit: NDArray[np.bool_], weights: NDArray[np.floating] | None = None
) -> Calibration:
    """The never falling table of hit shares by score, of float[n] scores, bool[n] hits and what each row stands for.

    `weights` float[n] > 0 undo a draw: rows of which one in w was kept count w (None: 1 each). Raises
    ConfigurationError without rows or when the sizes differ.
    """
    if not len(scores) or len(scores) != len(hit) or (weights is not None and len(weights) != len(scores)):
        raise ConfigurationError(f"{len(scores)} scores and {len(hit)} hits cannot be calibrated")
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip").fit(
        np.asarray(scores, dtype=np.float64), hit.astype(np.float64), sample_weight=weights
    )
    thresholds, values = fitted.X_thresholds_, fitted.y_thresholds_
    if len(thresholds) > MOST_KNOTS:
        kept = np.unique(np.linspace(0, len(thresholds) - 1, MOST_KNOTS).round().astype(np.int64))
        thresholds, values = thresholds[kept], values[kept]
    return Calibration(np.asarray(thresholds, np.float64), np.clip(np.asarray(values, np.float64), 0.0, 1.0))


def drawn_weights(
    graded: NDArray[np.bool_], length: NDArray[np.integer], candidates: NDArray[np.integer]
) -> NDArray[np.float64]:
    """float64[n]: how many rows each row stands for, on pages whose negatives were drawn.

    Graded rows (bool[n]) were all kept. A page (int[q]) has `length` rows of the `candidates` it had.
    """
    starts = np.cumsum(length) - length
    kept = length - np.add.reduceat(graded.astype(np.int64), starts)
    share = (kept + candidates - length) / np.maximum(kept, 1)
    return np.where(graded, 1.0, np.repeat(share, length))
