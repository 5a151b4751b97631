"""The parts of a ranker's score, for explanations: linear terms, trees, or both."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, fields

import numpy as np

from shared.errors import CorruptRecord
from shared.features.vector import Matrix
from shared.ranking.contributions import Contributions, TreePaths
from shared.ranking.linear_terms import LinearTerms

_TERMS = "linear_"
"""Before the names of the terms' arrays; those of the trees stand as in files that hold nothing else."""


@dataclass(frozen=True)
class RankerParts:
    """What a ranker's score is the sum of; at least one of them."""

    terms: LinearTerms | None
    trees: TreePaths | None

    def __post_init__(self) -> None:
        """Raises CorruptRecord when there is no part, or they read matrices of different widths."""
        counts = {int(one.features_count[0]) for one in (self.terms, self.trees) if one is not None}
        if len(counts) != 1:
            raise CorruptRecord(f"the parts of a ranker read matrices of {sorted(counts)} columns, not of one width")

    @property
    def features_count(self) -> int:
        """Columns of the matrix it reads."""
        return next(int(one.features_count[0]) for one in (self.terms, self.trees) if one is not None)

    def contributions(self, features: Matrix) -> Contributions:
        """Of float32[n, F] rows: what each feature adds in all parts; raises SchemaMismatch on another F."""
        found = [one.contributions(features) for one in (self.terms, self.trees) if one is not None]
        values = np.sum([one.values for one in found], axis=0)
        return Contributions(values, sum(one.expected for one in found))

    def encode(self) -> bytes:
        """A compressed .npz; equal parts give equal bytes."""
        arrays: dict[str, np.ndarray] = {}
        if self.trees is not None:
            arrays |= {one.name: getattr(self.trees, one.name) for one in fields(TreePaths)}
        if self.terms is not None:
            arrays |= {_TERMS + one.name: getattr(self.terms, one.name) for one in fields(LinearTerms)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def decode(cls, data: bytes) -> RankerParts:
        """The inverse of `encode`; reads `TreePaths.encode` as well. Raises CorruptRecord."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                held = set(arrays.files)
                terms = trees = None
                if any(name.startswith(_TERMS) for name in held):
                    terms = LinearTerms(**{one.name: arrays[_TERMS + one.name] for one in fields(LinearTerms)})
                if terms is None or any(not name.startswith(_TERMS) for name in held):
                    trees = TreePaths(**{one.name: arrays[one.name] for one in fields(TreePaths)})
        except (KeyError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise CorruptRecord(f"the ranker's parts cannot be read: {error}") from error
        return cls(terms, trees)
