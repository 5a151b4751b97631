"""Candidates from transition lists: what others did soon after the user's last items, and never what came before."""

from __future__ import annotations

from dataclasses import dataclass

from shared.candidates.neighbours import weigh_neighbours
from shared.candidates.opinion import Opinion
from shared.candidates.params import DEFAULT
from shared.candidates.query import ListKind, Query
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class TransitionsSource:
    """Nightly per-item lists, put together at request time from the last actions."""

    decay: float = DEFAULT.transitions_decay
    name: Retrieval = Retrieval.TRANSITIONS

    def consider(self, query: Query) -> Opinion:
        """The lists of the seeds, newer and heavier actions counting more."""
        return weigh_neighbours(query, ListKind.TRANSITIONS, query.seed_weights(self.decay))
