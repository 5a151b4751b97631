"""Candidates from similar lists: items like the user's last items."""

from __future__ import annotations

from dataclasses import dataclass

from shared.candidates.neighbours import score_neighbours
from shared.candidates.query import ListKind, Query, Ranked
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class SimilarSource:
    """Nightly per-item lists, put together at request time from the last actions."""

    name: Retrieval = Retrieval.SIMILAR

    def retrieve(self, query: Query, limit: int) -> Ranked:
        """The lists of the seeds, newer and heavier actions counting more."""
        return score_neighbours(query, ListKind.SIMILAR, query.seed_weights, limit)
