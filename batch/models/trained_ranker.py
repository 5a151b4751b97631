"""A trained ranker of any kind: linear terms, trees, or trees on top of terms."""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from batch.models.ranker_onnx import export_parts
from shared.errors import ConfigurationError
from shared.features.vector import SCHEMA, Matrix
from shared.ranking.linear_terms import LinearTerms


@dataclass(frozen=True)
class TrainedRanker:
    """Its score is the sum of its parts, of which at least one is there."""

    name: str
    terms: LinearTerms | None
    booster: lgb.Booster | None

    def __post_init__(self) -> None:
        """Refuses what cannot score."""
        if self.terms is None and self.booster is None:
            raise ConfigurationError(f"the ranker {self.name} has neither terms nor trees")

    def score(self, features: Matrix) -> NDArray[np.float32]:
        """float32[n] of float32[n, F] rows of the full matrix; higher is better."""
        return self.exact_score(features).astype(np.float32)

    def exact_score(self, features: Matrix) -> NDArray[np.float64]:
        """float64[n], before it is rounded."""
        scores = np.zeros(len(features))
        if self.terms is not None:
            scores += self.terms.score(features)
        if self.booster is not None:
            scores += np.asarray(self.booster.predict(features, num_threads=1), dtype=np.float64)
        return scores

    def to_onnx(self) -> bytes:
        """One graph: input "features" float32 [None, F], output "score" float32 [None, 1]."""
        return export_parts(self.booster, self.terms, SCHEMA.names)
