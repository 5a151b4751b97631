"""Personal repeat: what the user touched before, by how often and how lately.

After TIFU-kNN (Hu et al., SIGIR 2020), section 4: frequency with a temporal decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from shared.candidates.opinion import Listed, Opinion
from shared.candidates.query import Query
from shared.features.aggregations import DAY_MS
from shared.features.definitions import Retrieval

HALF_LIFE_MS: Final = 60 * DAY_MS


@dataclass(frozen=True, slots=True)
class RepeatSource:
    """The user's own items; request time."""

    name: Retrieval = Retrieval.REPEAT

    def consider(self, query: Query) -> Opinion:
        """Action weight times frequency, halved every 60 days since the last action."""
        history = query.history
        age = np.maximum(query.as_of - history.at, 0)
        scores = history.weights * history.counts * np.exp2(-age / HALF_LIFE_MS)
        return Listed.of(history.indexes, scores, query.eligible, seeds_of=lambda items: items)
