"""What the story's claims rest on: pure functions of pages that the API answered."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from local.shopper import Page, Shown

PERSONAL: Final = frozenset({"als", "cooccurrence", "transitions", "attributes", "repeat"})
"""Candidate sources that need something to be known about the shopper."""

EXPLORED_REASON: Final = "we would like to know"


def rank_mass(ranks: Mapping[str, int], items: Iterable[str]) -> float:
    """Sum of 1 / log2(1 + rank) over those of `items` that are ranked: NDCG's discount, 1.0 for a first place."""
    return sum(1.0 / math.log2(1 + ranks[item]) for item in items if item in ranks)


def risen(before: Mapping[str, int], after: Mapping[str, int], items: Iterable[str]) -> list[str]:
    """Those of `items` that stand higher after than before, or stand there at all now; best place now first."""
    beyond = max(before.values(), default=0) + 1
    found = [item for item in items if item in after and after[item] < before.get(item, beyond)]
    return sorted(found, key=lambda item: after[item])


def ascents(scores: Sequence[float]) -> int:
    """How often a score is higher than the one before it."""
    return sum(later > earlier for earlier, later in pairwise(scores))


def in_ranker_order(items: Sequence[Shown]) -> bool:
    """Scores fall down the page, leaving out a placement at random; what variety passed over may follow at the end.

    Such a tail starts once, so a page has one ascent at most.
    """
    return ascents([item.score for item in items if EXPLORED_REASON not in item.reason]) <= 1


def distinct_scores(items: Sequence[Shown]) -> int:
    """How many different scores the page holds."""
    return len({item.score for item in items})


def personal(items: Sequence[Shown]) -> list[Shown]:
    """The items that a personal source brought."""
    return [item for item in items if PERSONAL & set(item.sources)]


def mean_sources(items: Sequence[Shown]) -> float:
    """Sources an item, on average; 0 for no items."""
    return sum(len(item.sources) for item in items) / len(items) if items else 0.0


def naming(items: Sequence[Shown], titles: Collection[str]) -> list[Shown]:
    """The items whose reason names one of the titles."""
    return [item for item in items if any(title in item.reason for title in titles if title)]


def moves(before: Page, after: Page) -> list[tuple[Shown, int | None]]:
    """The items of the page after, each with its rank on the page before (None: it was not there)."""
    ranks = before.ranks
    return [(item, ranks.get(item.item_id)) for item in after.items]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
