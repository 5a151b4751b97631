"""Candidates from baskets: what others bought with what this user lately carted or bought."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.candidates.neighbours import weigh_neighbours
from shared.candidates.opinion import Opinion
from shared.candidates.params import DEFAULT
from shared.candidates.query import ListKind, Query
from shared.events import EventType
from shared.features.definitions import Retrieval
from shared.features.views import ACTION_WEIGHT


@dataclass(frozen=True, slots=True)
class BoughtTogetherSource:
    """Nightly per-item lists of association rules, joined at request time."""

    decay: float = DEFAULT.bought_together_decay
    name: Retrieval = Retrieval.BOUGHT_TOGETHER

    def consider(self, query: Query) -> Opinion:
        """Only seeds that were carted or bought, or are the page's own item, take part."""
        strength = dict(zip(query.history.indexes.tolist(), query.history.weights.tolist(), strict=True))
        enough = ACTION_WEIGHT[EventType.CART]
        taken = [seed == query.context or strength[seed] >= enough for seed in query.seeds.tolist()]
        weights = query.seed_weights(self.decay) * np.array(taken)
        return weigh_neighbours(query, ListKind.BOUGHT_TOGETHER, weights)
