"""Candidates from linear lists: what a regression of every item on all others expects next to the user's last items."""

from __future__ import annotations

from dataclasses import dataclass

from shared.candidates.neighbours import weigh_neighbours
from shared.candidates.opinion import Opinion
from shared.candidates.params import DEFAULT
from shared.candidates.query import ListKind, Query
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class LinearSource:
    """Nightly per-item lists, put together at request time from the last actions."""

    decay: float = DEFAULT.linear_decay
    name: Retrieval = Retrieval.LINEAR

    def consider(self, query: Query) -> Opinion:
        """The lists of the seeds, newer and heavier actions counting more."""
        return weigh_neighbours(query, ListKind.LINEAR, query.seed_weights(self.decay))
