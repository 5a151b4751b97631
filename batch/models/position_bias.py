"""How often a place on a page is looked at, and what a click there is worth: counterfactual learning to rank.

A click needs a look and relevance (the position-based model; Craswell et al., 2008), so clicks teach where an item
stood as much as what it is worth. Weighing a click by one over how often its place is looked at makes their sum what
it would be if every place were looked at (Joachims, Swaminathan and Schnabel, 2017).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import ConfigurationError

LEAST_EXAMINATION: Final = 0.05
"""A place counts as looked at this often at least: no click weighs more than 20."""
_PRIOR_CLICKS: Final = 1.0
_MOST_ROUNDS: Final = 500
_SETTLED: Final = 1e-6


def estimate_examination(
    position: NDArray[np.integer], kind: NDArray[np.integer], clicked: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """float64[K]: how often each position from 0 is looked at, in relation to the first, in [LEAST_EXAMINATION, 1].

    `position`, `kind` and `clicked` are of equal length n >= 1, a row each time something was shown; rows of one `kind`
    (integers from 0) are about equally relevant wherever they stand, such as a bin of the ranker's score. Clicks are
    fitted as examination of the position times relevance of the kind, by turns (iterative scaling of a log-linear
    model); a position with hardly a row stays near the first. Raises ConfigurationError without rows.
    """
    if not len(position) or not len(position) == len(kind) == len(clicked):
        raise ConfigurationError("no exposures, or of different lengths: positions cannot be told apart")
    shape = int(position.max()) + 1, int(kind.max()) + 1
    cell = position * shape[1] + kind
    shown = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    clicks = np.bincount(cell, clicked, minlength=shape[0] * shape[1]).reshape(shape)
    by_position, by_kind = clicks.sum(axis=1), clicks.sum(axis=0)
    examined = np.ones(shape[0])
    for _ in range(_MOST_ROUNDS):
        looked_at = examined @ shown
        relevance = np.divide(by_kind, looked_at, out=np.zeros(shape[1]), where=looked_at > 0)
        expected = shown @ relevance
        before = examined
        examined = (by_position + _PRIOR_CLICKS) / (expected + _PRIOR_CLICKS)
        examined = examined / examined[0]
        if np.abs(examined - before).max() < _SETTLED:
            break
    return np.clip(examined, LEAST_EXAMINATION, 1.0)


def click_weights(position: NDArray[np.integer], examined: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n]: what a click at each position stands for; places beyond the known ones count as the last of them."""
    looked_at: NDArray[np.float64] = examined[np.minimum(position, len(examined) - 1)]
    return 1.0 / np.maximum(looked_at, LEAST_EXAMINATION)
