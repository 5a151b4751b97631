"""Candidates from baskets: what others bought with what this user lately carted or bought."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.candidates.neighbours import score_neighbours
from shared.candidates.query import ListKind, Query, Ranked
from shared.events import EventType
from shared.features.definitions import Retrieval
from shared.features.views import ACTION_WEIGHT


@dataclass(frozen=True, slots=True)
class BoughtTogetherSource:
    """Nightly per-item lists of association rules, joined at request time."""

    name: Retrieval = Retrieval.BOUGHT_TOGETHER

    def retrieve(self, query: Query, limit: int) -> Ranked:
        """Only seeds that were carted or bought, or are the page's own item, take part."""
        strength = dict(zip(query.history.indexes.tolist(), query.history.weights.tolist(), strict=True))
        enough = ACTION_WEIGHT[EventType.CART]
        taken = [seed == query.context or strength[seed] >= enough for seed in query.seeds.tolist()]
        return score_neighbours(query, ListKind.BOUGHT_TOGETHER, query.seed_weights * np.array(taken), limit)
