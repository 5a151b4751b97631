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
        Retrieval.WALK: 100,
        Retrieval.LINEAR: 100,
        Retrieval.ATTRIBUTES: 60,
        Retrieval.SIMILAR: 80,
        Retrieval.BOUGHT_TOGETHER: 40,
        Retrieval.REPEAT: 80,
        Retrieval.CATEGORY: 60,
        Retrieval.POPULAR: 60,
        Retrieval.ARRIVALS: 30,
    }
)
"""The longest list each source adds to the candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceParams:
    """Request-time parameters of a release's sources; they travel in its manifest.

    seeds: of how many history items the neighbour lists are read; `<source>_decay`: weight of each older item against
    the next newer one; als_history: the most items folded in; session_weight: how much more an action of the current
    session says about what is wanted now than an older one; context_weight: the page's own item against a view (1), a
    cart (3) and a purchase (5); max_per_category: the most of one category on a page of 20, 0 for no such rule; limits:
    list lengths that differ from `LIMITS`, by source.
    """

    seeds: int = 20
    session_weight: float = 4.0
    context_weight: float = 8.0
    als_decay: float = 0.93
    als_history: int = 100
    cooccurrence_decay: float = 0.85
    walk_decay: float = 0.85
    linear_decay: float = 0.85
    attributes_decay: float = 0.85
    similar_decay: float = 0.85
    bought_together_decay: float = 0.85
    max_per_category: int = 6
    limits: dict[str, int] = field(default_factory=dict)

    def limit(self, source: Retrieval) -> int:
        """The longest list of this source."""
        return self.limits.get(source.value, LIMITS[source])


DEFAULT: Final = SourceParams()
