"""Candidates from similar lists: items like the user's last items."""

from __future__ import annotations

from dataclasses import dataclass

from shared.candidates.neighbours import weigh_neighbours
from shared.candidates.opinion import Opinion
from shared.candidates.params import DEFAULT
from shared.candidates.query import ListKind, Query
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class SimilarSource:
    """Nightly per-item lists, put together at request time from the last actions."""

    decay: float = DEFAULT.similar_decay
    name: Retrieval = Retrieval.SIMILAR

    def consider(self, query: Query) -> Opinion:
        """The lists of the seeds, newer and heavier actions counting more."""
        return weigh_neighbours(query, ListKind.SIMILAR, query.seed_weights(self.decay))
