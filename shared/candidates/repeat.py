"""Personal repeat: what the user touched before, by how often, how lately, and whether it is due again.

After TIFU-kNN (Hu et al., "Modeling Personalized Item Frequency Information for Next-basket Recommendation", SIGIR
2020), section 4: item frequency under decays of two time scales. Its neighbours are the other sources' work. That who
has just bought a thing waits as long as she usually does is from Bhagat et al., "Buy It Again" (KDD 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.candidates.opinion import Listed, Opinion
from shared.candidates.params import DEFAULT, RepeatParams
from shared.candidates.query import Acts, Query
from shared.events import EventType
from shared.features.aggregations import DAY_MS
from shared.features.definitions import Retrieval
from shared.features.views import ACTION_WEIGHT

SAME_OCCASION_DAYS: Final = 0.5
"""Purchases of an item no further apart are one occasion: nothing to learn a gap from."""
_LEAST: Final = 1e-30
"""What is left of an act of ages ago: even it can be told from none."""


@dataclass(frozen=True, slots=True)
class RepeatSource:
    """The user's own items; request time."""

    params: RepeatParams = DEFAULT.repeat
    name: Retrieval = Retrieval.REPEAT

    def consider(self, query: Query) -> Opinion:
        """Frequency and recency, less for what is not due yet, by how much the shop wants the item now."""
        history = query.history
        if not len(history.acts.items):
            return Listed.nothing()
        demand = query.trends.against_mean(history.indexes) + self.params.demand_floor
        scores = own_scores(history.acts, query.as_of, self.params) * demand**self.params.demand
        return Listed.of(history.indexes, np.maximum(scores, _LEAST), query.eligible, seeds_of=lambda items: items)


def own_scores(acts: Acts, as_of: int, params: RepeatParams) -> NDArray[np.float64]:
    """float64[m] > 0: the user's m items (places 0 to m - 1) by her own acts alone; without acts none.

    An act weighs w; of item i, n is the newest act's weight and s the sum of all. The score is n^(1 - f) s^f with the
    frequency f, times `due`.
    """
    days = np.maximum(as_of - acts.at, 0) / DAY_MS
    decay = (1 - params.short_share) * np.exp2(-days / params.long_days)
    decay += params.short_share * np.exp2(-days / params.short_days)
    weights = np.maximum(acts.weights * decay * params.step_decay ** np.arange(len(days)), _LEAST)
    total = np.bincount(acts.items, weights=weights)
    newest = np.zeros(len(total))
    newest[acts.items[::-1]] = weights[::-1]  # of several the newest stays
    scores = newest ** (1 - params.frequency) * total**params.frequency
    if len(acts.items) and acts.weights[0] == ACTION_WEIGHT[EventType.VIEW]:
        scores[acts.items[0]] *= params.at_hand_share
    return scores * due(acts, as_of, params)


def due(acts: Acts, as_of: int, params: RepeatParams) -> NDArray[np.float64]:
    """float64[m] in [1 - wait, 1]: how far each of the user's m items is from having just been bought.

    An item's usual gap is the mean of its own gaps between purchases and of `gap_prior` gaps of her items in general.
    What she never bought is always due, and so is what she bought once while nothing is known of her gaps.
    """
    count = int(acts.items.max(initial=-1)) + 1
    bought = acts.weights == ACTION_WEIGHT[EventType.PURCHASE]
    items, days = acts.items[bought], np.maximum(as_of - acts.at[bought], 0) / DAY_MS
    if not len(items) or not params.wait:
        return np.ones(count)
    order = np.lexsort((days, items))
    items, days = items[order], days[order]
    apart = np.diff(days)
    gaps = np.flatnonzero((np.diff(items) == 0) & (apart > SAME_OCCASION_DAYS))
    number = np.bincount(items[gaps], minlength=count).astype(np.float64)
    length = np.bincount(items[gaps], weights=apart[gaps], minlength=count)
    usual = length.sum() / len(gaps) if len(gaps) else params.usual_gap_days
    prior = params.gap_prior if usual > 0 else 0.0
    since = np.full(count, np.inf)
    since[items[::-1]] = days[::-1]
    known = np.flatnonzero(np.isfinite(since) & (number + prior > 0))
    evidence = number[known] + prior
    gap = (length[known] + prior * usual) / evidence
    waiting = np.exp(-((since[known] / (params.due_at * gap)) ** params.due_sharpness))
    share = np.ones(count)
    share[known] -= params.wait * evidence / (evidence + params.gap_doubt) * waiting
    return share
