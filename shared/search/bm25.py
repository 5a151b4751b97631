"""BM25 as FTS5 computes it, for documents that stand outside of the index."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

K1: Final = 1.2
B: Final = 0.75
SMALLEST_IDF: Final = 1e-6
"""Of a word that more than half of all documents have."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What scores depend on beside the document: how many there are, and their mean length in words."""

    documents: int
    mean_length: float

    def scores(self, times: Floats, lengths: Floats, having: int) -> Floats:
        """float64[k] of documents that have a word `times` (weighted by column), of `having` that do.

        https://sqlite.org/fts5.html#the_bm25_function, without its sign: higher is better.
        """
        idf = max(math.log((max(self.documents - having, 0) + 0.5) / (having + 0.5)), SMALLEST_IDF)
        mean = self.mean_length or 1.0
        return np.asarray(idf * times * (K1 + 1) / (times + K1 * (1 - B + B * lengths / mean)))
