"""A ranked list of items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indexes = NDArray[np.int32]
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A source's list, best first: int32[k] indexes, float32[k] scores above 0, and the seed behind each (-1: none)."""

    indexes: Indexes
    scores: Scores
    via: Indexes

    @classmethod
    def top(cls, indexes: Indexes, scores: NDArray[np.floating], limit: int) -> Ranked:
        """The `limit` best by score, ties by index; a score that float32 cannot tell from 0 is no recommendation."""
        if len(indexes) > limit:
            kept = scores >= np.partition(scores, -limit)[-limit]
            indexes, scores = indexes[kept], scores[kept]
        order = np.lexsort((indexes, -scores))[:limit]
        order = order[scores[order].astype(np.float32) > 0]
        return cls.seedless(indexes[order], scores[order])

    @classmethod
    def seedless(cls, indexes: NDArray[np.integer], scores: NDArray[np.floating]) -> Ranked:
        """A list in its order, with no seed behind its items."""
        return cls(indexes.astype(np.int32), scores.astype(np.float32), np.full(len(indexes), -1, np.int32))

    @classmethod
    def none(cls) -> Ranked:
        """The empty list."""
        return cls(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int32))
