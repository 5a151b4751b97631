"""ALS: items near the user's factor, which is folded in from her decayed history.

Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008), equation 4, with the
confidences of `implicit`: x = (Y'Y + sum (c - 1) y y' + reg I)^-1 sum c y, c = alpha * weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.candidates.opinion import Listed, Opinion
from shared.candidates.params import DEFAULT
from shared.candidates.query import History, Query
from shared.candidates.ranked import Indexes, Ranked, Scores
from shared.features.definitions import Retrieval

_LATER: Final = ("frequency_scaling", "projection", "length_power")
FEW_IN: Final = 16
"""Where fewer than one item in so many may be shown, only their factors are read."""


@dataclass(frozen=True, slots=True)
class ItemFactors:
    """float32[n_items, d] factors, their Gram matrix float64[d, d], and the hyper-parameters they were fitted with.

    frequency_scaling: exponent by which a user's regularization grows with her items; projection: a user's factor is no
    solution of equations but the plain sum of her items' factors, as a low-pass filter has it (1: so, 0: not so);
    length_power: in that sum an item counts by its factor's length to this power (-1: all alike).
    """

    factors: NDArray[np.float32]
    gram: NDArray[np.float64]
    regularization: float
    alpha: float
    frequency_scaling: float = 0.0
    projection: float = 0.0
    length_power: float = 0.0

    @classmethod
    def of(cls, factors: NDArray[np.float32], regularization: float, alpha: float) -> ItemFactors:
        """Compute the Gram matrix."""
        return cls.from_params(factors, {"regularization": regularization, "alpha": alpha})

    @classmethod
    def from_params(
        cls, factors: NDArray[np.float32], params: Mapping[str, float], gram: NDArray[np.float64] | None = None
    ) -> ItemFactors:
        """The inverse of `fold_in_params`; params may lack what is newer. Without a Gram matrix computes it."""
        if gram is None:
            wide = factors.astype(np.float64)
            gram = wide.T @ wide
        later = {name: float(params[name]) for name in _LATER if name in params}
        return cls(factors, gram, float(params["regularization"]), float(params["alpha"]), **later)

    def fold_in_params(self) -> dict[str, float]:
        """The hyper-parameters by name; those that older code does not know are named only where they matter."""
        later = {name: float(getattr(self, name)) for name in _LATER if getattr(self, name)}
        return {"regularization": self.regularization, "alpha": self.alpha, **later}

    def fold_in(self, history: History, decay: float, most: int) -> NDArray[np.float32]:
        """float32[d]: the user's factor of her `most` newest items; zeros where none of them has factors.

        Each older item weighs `decay` times the next newer one.
        """
        known = history.indexes < len(self.factors)
        indexes = history.indexes[known][:most]
        if not len(indexes):
            return np.zeros(self.factors.shape[1], np.float32)
        weights = history.weights[known][:most] * decay ** np.arange(len(indexes))
        confidence = self.alpha * weights
        liked = self.factors[indexes].astype(np.float64)
        if self.projection:
            lengths = np.linalg.norm(liked, axis=1)
            weights = weights * np.where(lengths > 0, lengths, 1.0) ** self.length_power
            return np.asarray(liked.T @ weights, dtype=np.float32)
        left = self.gram + (liked.T * (confidence - 1)) @ liked
        left[np.diag_indices_from(left)] += self.regularization * (1 + len(indexes)) ** self.frequency_scaling
        return np.linalg.solve(left, liked.T @ confidence).astype(np.float32)


@dataclass(frozen=True, slots=True)
class AlsSource:
    """Nightly item factors and nightly per-user records; a history newer than its record is folded in at request time.

    An exact scan of all factors; what the user already touched is scored, but left to the repeat source.
    """

    items: ItemFactors
    decay: float = DEFAULT.als_decay
    history: int = DEFAULT.als_history
    name: Retrieval = Retrieval.ALS

    def consider(self, query: Query) -> Opinion:
        """Scores are inner products with the user's factor."""
        if not len(query.history.indexes):
            return Listed.nothing()
        return self.consider_for(self.factor(query), query)

    def factor(self, query: Query) -> NDArray[np.float32]:
        """float32[d]: the user's factor."""
        return self.items.fold_in(query.history, self.decay, self.history)

    def consider_for(self, vector: NDArray[np.float32], query: Query, ready: Ranked | None = None) -> FactorOpinion:
        """As `consider`, for a user factor that is known already, and a list made from it before."""
        return FactorOpinion(self.items.factors, vector, query, ready)


@dataclass(frozen=True, slots=True)
class FactorOpinion:
    """What a user's factor says of all items; `ready` stands in for the scan."""

    factors: NDArray[np.float32]
    vector: NDArray[np.float32]
    query: Query
    ready: Ranked | None = None

    def top(self, limit: int) -> Ranked:
        """Items with the largest inner product above 0."""
        if self.ready is not None:
            return Ranked(self.ready.indexes[:limit], self.ready.scores[:limit], self.ready.via[:limit])
        factors = self.factors
        allowed = self.query.eligible[: len(factors)].copy()
        touched = self.query.history.indexes
        allowed[touched[touched < len(factors)]] = False
        indexes = np.flatnonzero(allowed).astype(np.int32)
        few = len(indexes) * FEW_IN <= len(factors)  # the hits of a search: a scan of all would cost more than the rest
        scores = factors[indexes] @ self.vector if few else (factors @ self.vector)[indexes]
        return Ranked.top(indexes[scores > 0], scores[scores > 0], limit)

    def at(self, candidates: Indexes) -> Scores:
        """Inner products, 0 where they are negative and for items without factors."""
        scores = np.zeros(len(candidates), np.float32)
        known = candidates < len(self.factors)
        scores[known] = np.maximum(self.factors[candidates[known]] @ self.vector, 0)
        return scores
