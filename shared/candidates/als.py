"""ALS: items near the user's factor, which is folded in from her decayed history.

Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008), equation 4, with the
confidences of `implicit`: x = (Y'Y + sum (c - 1) y y' + reg I)^-1 sum c y, c = alpha * weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.candidates.query import History, Query, Ranked
from shared.features.definitions import Retrieval

HISTORY_DECAY: Final = 0.93
"""Weight of each older item against the next newer one."""
MAX_HISTORY: Final = 100

FEW_IN: Final = 16
"""Where fewer than one item in so many may be shown, only their factors are read."""


@dataclass(frozen=True, slots=True)
class ItemFactors:
    """float32[n_items, d] factors, their Gram matrix float64[d, d], and the hyper-parameters they were fitted with."""

    factors: NDArray[np.float32]
    gram: NDArray[np.float64]
    regularization: float
    alpha: float

    @classmethod
    def of(cls, factors: NDArray[np.float32], regularization: float, alpha: float) -> ItemFactors:
        """Compute the Gram matrix."""
        wide = factors.astype(np.float64)
        return cls(factors, wide.T @ wide, regularization, alpha)

    def fold_in(self, history: History) -> NDArray[np.float32]:
        """float32[d]: the user's factor; zeros without a history of items that have factors."""
        known = history.indexes < len(self.factors)
        indexes = history.indexes[known][:MAX_HISTORY]
        if not len(indexes):
            return np.zeros(self.factors.shape[1], np.float32)
        weights = history.weights[known][:MAX_HISTORY] * HISTORY_DECAY ** np.arange(len(indexes))
        confidence = self.alpha * weights
        liked = self.factors[indexes].astype(np.float64)
        left = self.gram + (liked.T * (confidence - 1)) @ liked
        left[np.diag_indices_from(left)] += self.regularization
        return np.linalg.solve(left, liked.T @ confidence).astype(np.float32)


@dataclass(frozen=True, slots=True)
class AlsSource:
    """Exact scan of all item factors; what the user already touched is left to the repeat source."""

    items: ItemFactors
    name: Retrieval = Retrieval.ALS

    def retrieve(self, query: Query, limit: int) -> Ranked:
        """Items with the largest inner product, scores shifted to be above 0."""
        if not len(query.history.indexes):
            return Ranked.none()
        return self.retrieve_for(self.items.fold_in(query.history), query, limit)

    def retrieve_for(self, vector: NDArray[np.float32], query: Query, limit: int) -> Ranked:
        """As `retrieve`, for a user factor that is known already."""
        factors = self.items.factors
        allowed = query.eligible[: len(factors)].copy()
        touched = query.history.indexes
        allowed[touched[touched < len(factors)]] = False
        indexes = np.flatnonzero(allowed).astype(np.int32)
        few = len(indexes) * FEW_IN <= len(factors)  # the hits of a search: a scan of all would cost more than the rest
        scores = factors[indexes] @ vector if few else (factors @ vector)[indexes]
        return Ranked.top(indexes[scores > 0], scores[scores > 0], limit)
