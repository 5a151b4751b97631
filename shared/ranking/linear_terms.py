"""A linear ranker: the score is a sum of weighted, transformed features, and so is its own explanation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import SchemaMismatch
from shared.features.vector import Matrix
from shared.ranking.contributions import Contributions

Z_LIMIT = 10.0
"""No term counts as further than this many standard deviations from its mean, whatever a feature's value is."""

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class LinearTerms:
    """k terms over a matrix of `features_count` int64[1] columns; the score is their sum.

    Term: `weight` times z = (t - `mean`) / `scale`, cut to +-Z_LIMIT, where t = x of column `feature` int16[k], or
    log(max(x, 0) + `offset`) where `offset` float32[k] is not NaN; an x that is NaN counts as `fill` float32[k]. The
    others are float64[k]. Because z has mean 0 on the training rows, a term is its feature's Shapley value (Strumbelj
    and Kononenko, 2014) and the expected score is 0.
    """

    feature: NDArray[np.int16]
    offset: NDArray[np.float32]
    fill: NDArray[np.float32]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    features_count: NDArray[np.int64]

    def score(self, features: Matrix) -> NDArray[np.float64]:
        """float64[n] of float32[n, F] rows; raises SchemaMismatch when F is not what the terms read."""
        self._check(features)
        scores = np.empty(len(features))
        for first in range(0, len(features), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            scores[rows] = self._standardised(features[rows]) @ self.weight
        return scores

    def contributions(self, features: Matrix) -> Contributions:
        """float64[n, F] of what each feature adds; raises as `score` does."""
        self._check(features)
        terms = self._standardised(features) * self.weight
        values = np.zeros((len(features), int(self.features_count[0])))
        for column, feature in enumerate(self.feature.tolist()):
            values[:, feature] += terms[:, column]
        return Contributions(values, 0.0)

    def transformed(self, features: Matrix) -> NDArray[np.float64]:
        """float64[n, k]: t of every term, before it is standardised."""
        read = features[:, self.feature]
        values = np.where(np.isnan(read), self.fill, read).astype(np.float64)
        logged = np.flatnonzero(~np.isnan(self.offset))
        values[:, logged] = np.log(np.maximum(values[:, logged], 0.0) + self.offset[logged])
        return values

    def _standardised(self, features: Matrix) -> NDArray[np.float64]:
        return np.clip((self.transformed(features) - self.mean) / self.scale, -Z_LIMIT, Z_LIMIT)

    def _check(self, features: Matrix) -> None:
        width = int(self.features_count[0])
        if features.ndim != 2 or features.shape[1] != width or features.dtype != np.float32:
            raise SchemaMismatch(
                f"the terms read float32 rows of {width} features, not {features.dtype} {list(features.shape)}"
            )
