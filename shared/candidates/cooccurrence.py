"""Candidates from cooccurrence lists: what others did next after the user's last items."""

from __future__ import annotations

from dataclasses import dataclass

from shared.candidates.neighbours import score_neighbours
from shared.candidates.query import ListKind, Query, Ranked
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class CooccurrenceSource:
    """Nightly per-item lists, put together at request time from the last actions."""

    name: Retrieval = Retrieval.COOCCURRENCE

    def retrieve(self, query: Query, limit: int) -> Ranked:
        """The lists of the seeds, newer and heavier actions counting more."""
        return score_neighbours(query, ListKind.COOCCURRENCE, query.seed_weights, limit)
