"""What each feature adds to a score: exact, path-dependent TreeSHAP (Lundberg et al., arXiv:1802.03888, 2018) in NumPy.

A leaf is the conjunction of its path's conditions, one a feature. With o = 1 where a row meets the condition, else 0,
and z the share of the training rows that go along where it is unknown, the feature's Shapley value is
(o - z) * integral over t from 0 to 1 of the product of (o' t + z' (1 - t)) over the path's other features: the weights
|S|! (m - |S| - 1)! / m! are those integrals. Gauss-Legendre quadrature with m / 2 points is exact for a polynomial of
degree m - 1, so leaves and rows are computed side by side instead of walking trees one by one.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.errors import CorruptRecord, SchemaMismatch
from shared.features.vector import Matrix

_ROWS_AT_ONCE = 32
"""Bounds the memory: 32 rows of 6,000 leaves with paths of 8 are 12 MB."""


@dataclass(frozen=True)
class Contributions:
    """float64[n, F] of what each feature adds to each row's score, and the score expected without any of them."""

    values: NDArray[np.float64]
    expected: float


@dataclass(frozen=True)
class TreePaths:
    """A tree ensemble as its leaves' paths.

    Leaves: `value` float64[L], `length` int16[L] conditions on the path, ascending. Conditions, leaf by leaf:
    `feature` int16[K] (no feature twice in a leaf); a row meets one when not x <= `above` and x <= `most`
    (float32[K]; NaN and +inf: no bound), or x is NaN and `nan_follows`; `share` float64[K] in (0, 1]. `constant`
    float64[1]: the sum of trees without a split. `features_count` int64[1].
    """

    value: NDArray[np.float64]
    length: NDArray[np.int16]
    feature: NDArray[np.int16]
    above: NDArray[np.float32]
    most: NDArray[np.float32]
    nan_follows: NDArray[np.bool_]
    share: NDArray[np.float64]
    constant: NDArray[np.float64]
    features_count: NDArray[np.int64]

    def encode(self) -> bytes:
        """A compressed .npz; equal paths give equal bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{one.name: getattr(self, one.name) for one in fields(self)})
        return buffer.getvalue()

    @classmethod
    def decode(cls, data: bytes) -> TreePaths:
        """The inverse of `encode`; raises CorruptRecord."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return cls(**{one.name: arrays[one.name] for one in fields(cls)})
        except (KeyError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise CorruptRecord(f"the ranker's trees cannot be read: {error}") from error

    @cached_property
    def expected(self) -> float:
        """The mean score of the training rows."""
        starts = np.cumsum(self.length) - self.length
        reached = np.multiply.reduceat(self.share, starts) if len(starts) else np.empty(0)
        return float(self.value @ reached + self.constant[0])

    def contributions(self, features: Matrix) -> Contributions:
        """Of float32[n, F] rows; raises SchemaMismatch when F is not what the trees were trained on."""
        width = int(self.features_count[0])
        if features.ndim != 2 or features.shape[1] != width:
            raise SchemaMismatch(f"the trees read {width} features, not {list(features.shape)}")
        values = np.zeros((len(features), width))
        for first in range(0, len(features), _ROWS_AT_ONCE):
            chunk = features[first : first + _ROWS_AT_ONCE]
            values[first : first + len(chunk)] = sum(self._of_length(length, chunk) for length in self._lengths)
        return Contributions(values, self.expected)

    @cached_property
    def _lengths(self) -> list[int]:
        return [int(length) for length in np.unique(self.length)]

    def _of_length(self, length: int, rows: Matrix) -> NDArray[np.float64]:
        """float64[n, F]: what the leaves with so many conditions say; below, arrays are [n, leaves, length]."""
        leaves = np.flatnonzero(self.length == length)
        start = int(self.length[: leaves[0]].sum(dtype=np.int64))
        kept = slice(start, start + len(leaves) * length)
        shape = (len(leaves), length)
        feature = self.feature[kept]
        x = rows[:, feature]
        meets = ~(x <= self.above[kept]) & (x <= self.most[kept]) | np.isnan(x) & self.nan_follows[kept]
        meets = meets.reshape(-1, *shape)
        share = self.share[kept].reshape(shape)
        weight = np.zeros(meets.shape)
        points, point_weights = np.polynomial.legendre.leggauss((length + 1) // 2)
        for point, point_weight in zip((points + 1) / 2, point_weights / 2, strict=True):
            factors = meets * point + share * (1 - point)
            weight += point_weight * factors.prod(axis=2, keepdims=True) / factors
        added = (meets - share) * weight * self.value[leaves][:, None]
        width = int(self.features_count[0])
        cells = np.arange(len(rows))[:, None] * width + feature
        counted = np.bincount(cells.ravel(), added.reshape(-1), minlength=len(rows) * width)
        return counted.reshape(len(rows), width)
