"""A score's parts as the API writes them."""

from __future__ import annotations

import math

from functions.api.models import FeatureContribution, ScoreExplanation
from functions.pages.page_explanation import ScoreParts


def score_explanation(parts: ScoreParts) -> ScoreExplanation:
    """The model of one item's score."""
    return ScoreExplanation(
        expected=parts.expected,
        contributions=[
            FeatureContribution(
                feature=one.feature,
                value=one.value if math.isfinite(one.value) else None,
                contribution=one.contribution,
            )
            for one in parts.largest
        ],
        rest=parts.rest,
    )
