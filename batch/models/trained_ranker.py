"""A trained ranker of any kind: linear terms, trees, or trees on top of terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lightgbm as lgb
import msgspec
import numpy as np
from numpy.typing import NDArray

from batch.models.ranker_onnx import export_parts
from batch.models.ranker_trees import tree_paths
from shared.errors import ConfigurationError, SchemaMismatch
from shared.features.vector import SCHEMA, Matrix
from shared.ranking.contributions import Contributions
from shared.ranking.linear_terms import LinearTerms
from shared.ranking.ranker_parts import RankerParts

KIND_FILE: Final = "ranker.json"
TREES_FILE: Final = "model.txt"
TERMS_FILE: Final = "terms.npz"


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
        """float32[n] of float32[n, F] rows of the full matrix; higher is better. Raises SchemaMismatch on another F."""
        return self.exact_score(features).astype(np.float32)

    def exact_score(self, features: Matrix) -> NDArray[np.float64]:
        """float64[n], before it is rounded."""
        scores = np.zeros(len(features))
        if self.terms is not None:
            scores += self.terms.score(features)
        if self.booster is not None:
            _check_width(self.booster, features)
            scores += np.asarray(self.booster.predict(features, num_threads=1), dtype=np.float64)
        return scores

    def exact_contributions(self, features: Matrix) -> Contributions:
        """What each feature adds, the trees' share by LightGBM itself: what `parts` is held against."""
        values, expected = np.zeros(features.shape), 0.0
        if self.terms is not None:
            values += self.terms.contributions(features).values
        if self.booster is not None:
            _check_width(self.booster, features)
            said = np.asarray(self.booster.predict(features, pred_contrib=True, num_threads=1), dtype=np.float64)
            values += said[:, :-1]
            expected = float(said[0, -1]) if len(said) else 0.0
        return Contributions(values, expected)

    def to_onnx(self) -> bytes:
        """One graph: input "features" float32 [None, F], output "score" float32 [None, 1]."""
        return export_parts(self.booster, self.terms, SCHEMA.names)

    def parts(self) -> RankerParts:
        """What explains its scores where LightGBM may not be imported."""
        return RankerParts(self.terms, None if self.booster is None else tree_paths(self.booster))

    def save(self, folder: Path) -> None:
        """Write ranker.json, and model.txt and terms.npz as far as it has them, into an existing folder."""
        (folder / KIND_FILE).write_bytes(msgspec.json.encode({"name": self.name}))
        if self.booster is not None:
            self.booster.save_model(str(folder / TREES_FILE))
        if self.terms is not None:
            (folder / TERMS_FILE).write_bytes(RankerParts(self.terms, None).encode())

    @classmethod
    def load(cls, folder: Path) -> TrainedRanker:
        """The inverse of `save`; a model.txt alone is LambdaMART. Raises ConfigurationError when nothing is there."""
        kind, trees, terms = folder / KIND_FILE, folder / TREES_FILE, folder / TERMS_FILE
        if not (trees.exists() or terms.exists()):
            raise ConfigurationError(f"there is no ranker in {folder}; run python -m batch.train_ranker first")
        name = msgspec.json.decode(kind.read_bytes(), type=dict[str, str])["name"] if kind.exists() else "lambdamart"
        return cls(
            name,
            RankerParts.decode(terms.read_bytes()).terms if terms.exists() else None,
            lgb.Booster(model_file=str(trees)) if trees.exists() else None,
        )


def _check_width(booster: lgb.Booster, features: Matrix) -> None:
    if features.ndim != 2 or features.shape[1] != booster.num_feature() or features.dtype != np.float32:
        raise SchemaMismatch(
            f"the trees read float32 rows of {booster.num_feature()} features, not {features.dtype} "
            f"{list(features.shape)}"
        )
