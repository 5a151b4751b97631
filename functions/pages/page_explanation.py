"""Why a page is as it is: what each feature added to a score, and what the rules took away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from functions.pages.shown_items import product_at
from functions.releases.item_follower import Stock
from functions.releases.loaded_release import LoadedRelease
from shared.events import ItemId
from shared.features.vector import Matrix
from shared.ranking.rules import Mask

MOST_EXAMPLES: Final = 20
MOST_FEATURES: Final = 10
SCORE_TOLERANCE: Final = 1e-4
"""A ranker's score is summed in float32; what differs by more came from elsewhere."""


@dataclass(frozen=True, slots=True)
class FeatureShare:
    """One feature of one item: its value, and what it added to the score (its Shapley value)."""

    feature: str
    value: float
    contribution: float


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """A score is `expected` + the contributions in `largest` (by magnitude) + `rest`, those of all other features."""

    expected: float
    largest: tuple[FeatureShare, ...]
    rest: float


@dataclass(frozen=True, slots=True)
class PageExplanation:
    """`scores` of the shown items in order, None where the ranker did not score or its parts are not at hand."""

    scores: Sequence[ScoreParts] | None
    removed_examples: Mapping[str, Sequence[ItemId]]


def score_parts(release: LoadedRelease, features: Matrix, scores: NDArray[np.floating]) -> list[ScoreParts] | None:
    """Each row of float32[n, F] explained.

    None when the release does not bring the ranker's parts, or when these scores [n] are not what they say: a
    stranger's page is ordered by popularity.
    """
    if release.ranker_parts is None:
        return None
    names = release.manifest.feature_names
    found = release.ranker_parts.contributions(features)
    said = found.values.sum(axis=1) + found.expected
    if np.any(np.abs(said - scores) > SCORE_TOLERANCE * np.maximum(1.0, np.abs(said))):
        return None
    parts = []
    for row, values in enumerate(found.values):
        order = np.argsort(-np.abs(values), kind="stable")[:MOST_FEATURES]
        largest = tuple(
            FeatureShare(names[column], float(features[row, column]), float(values[column]))
            for column in order.tolist()
            if values[column]
        )
        rest = float(values.sum()) - sum(one.contribution for one in largest)
        parts.append(ScoreParts(found.expected, largest, rest))
    return parts


def removed_examples(stock: Stock, taken: Mapping[str, Mask]) -> dict[str, list[ItemId]]:
    """Up to 20 of the items that each rule took, in the release's order."""
    return {
        rule: [product_at(stock, index).item_id for index in np.flatnonzero(mask)[:MOST_EXAMPLES].tolist()]
        for rule, mask in taken.items()
    }
