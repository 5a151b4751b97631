"""Candidates from attribute lists: what the catalogue describes like the user's last items, sold before or not."""

from __future__ import annotations

from dataclasses import dataclass

from shared.candidates.neighbours import weigh_neighbours
from shared.candidates.opinion import Opinion
from shared.candidates.params import DEFAULT
from shared.candidates.query import ListKind, Query
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class AttributesSource:
    """Nightly per-item lists of what the catalogue describes alike, put together at request time."""

    decay: float = DEFAULT.attributes_decay
    name: Retrieval = Retrieval.ATTRIBUTES

    def consider(self, query: Query) -> Opinion:
        """The lists of the seeds, newer and heavier actions counting more."""
        return weigh_neighbours(query, ListKind.ATTRIBUTES, query.seed_weights(self.decay))
