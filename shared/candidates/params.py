"""What is tunable at request time: how far back a source looks, and how fast what it sees grows old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from shared.features.definitions import Retrieval

LIMITS: Final[Mapping[Retrieval, int]] = MappingProxyType(
    {
        Retrieval.ALS: 100,
        Retrieval.COOCCURRENCE: 100,
        Retrieval.TRANSITIONS: 100,
        Retrieval.ATTRIBUTES: 60,
        Retrieval.REPEAT: 80,
        Retrieval.POPULAR: 60,
        Retrieval.ARRIVALS: 30,
    }
)
"""The longest list each source adds to the candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatParams:
    """How the user's own items come again (`shared.candidates.repeat`).

    long_days, short_days: half-lives of an act, the short one for its share `short_share` in [0, 1]; step_decay: weight
    of each older act against the next newer one, whatever the time between; frequency: 0 counts an item's newest act
    alone, 1 sums all of them. at_hand_share: what is left to the item of the newest act where that was a view: she has
    it before her.

    wait in [0, 1]: the most that is taken from what was bought and is not due yet; due_at: the share of the usual gap
    after which an item is due, due_sharpness: how suddenly; gap_prior: of how many gaps of her other items an item's
    own are reminded, gap_doubt: after how many gaps they are half believed; usual_gap_days: the gap of someone who
    never bought a thing twice, 0 for not known.

    demand: exponent of the item's popularity now over the shop's mean, which `demand_floor` means are added to.
    """

    long_days: float = 280.0
    short_days: float = 14.0
    short_share: float = 0.28
    step_decay: float = 1.0
    frequency: float = 0.6
    at_hand_share: float = 0.6
    wait: float = 0.4
    due_at: float = 0.5
    due_sharpness: float = 4.0
    gap_prior: float = 0.2
    gap_doubt: float = 0.55
    usual_gap_days: float = 0.0
    demand: float = 0.5
    demand_floor: float = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class PopularParams:
    """How popularity bends to taste (`shared.candidates.popular`).

    taste: weight of a category's lift (her share of it over the shop's, which `prior_share` is added to) against 1 for
    what is popular at all; taste_decay: weight of each older item of her history; categories: so many of the foremost
    count; momentum: exponent of the last day against the week.
    """

    taste: float = 0.33
    taste_decay: float = 0.99
    prior_share: float = 0.01
    categories: int = 10
    momentum: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceParams:
    """Request-time parameters of a release's sources; they travel in its manifest.

    seeds: of how many history items the neighbour lists are read; `<source>_decay`: weight of each older item against
    the next newer one; als_history: the most items folded in; session_weight: how much more an action of the current
    session says about what is wanted now than an older one; context_weight: the page's own item against a view (1), a
    cart (3) and a purchase (5); repeat, popular: their sources' own; max_per_category: the most of one category on a
    page of 20, 0 for no such rule; limits: list lengths that differ from `LIMITS`, by source.
    """

    seeds: int = 20
    session_weight: float = 4.0
    context_weight: float = 8.0
    als_decay: float = 0.93
    als_history: int = 100
    cooccurrence_decay: float = 0.85
    transitions_decay: float = 0.85
    attributes_decay: float = 0.85
    repeat: RepeatParams = field(default_factory=RepeatParams)
    popular: PopularParams = field(default_factory=PopularParams)
    max_per_category: int = 6
    limits: dict[str, int] = field(default_factory=dict)

    def limit(self, source: Retrieval) -> int:
        """The longest list of this source."""
        return self.limits.get(source.value, LIMITS[source])


DEFAULT: Final = SourceParams()
