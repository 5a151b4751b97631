"""GET /recommendations/{recommendation_id}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response

from functions.api import access
from functions.api.explained_scores import score_explanation
from functions.api.models import ItemExplanation, SourceExplanation
from functions.api.parameters import answer, iso, problems
from functions.api.recommendation_models import RecordedItem, RecordedRecommendation, RecordedRequest
from functions.api.worker import Worker
from functions.pages.page_explanation import ScoreParts
from functions.pages.recommendation_ids import PATTERN
from functions.pages.recorded_pages import RecordedPage

router = APIRouter(tags=["recommendations"])

RecommendationId = Annotated[
    str,
    Path(
        pattern=PATTERN,
        description="As an answer of /recommend gave it",
        examples=["r20261123.019ab2c3d4e57f60a1b2c3d4e5f60718"],
    ),
]


@router.get(
    "/recommendations/{recommendation_id}",
    dependencies=[access.SERVICE],
    response_model=RecordedRecommendation,
    responses=problems(404, 422, 503),
)
def recorded_recommendation(recommendation_id: RecommendationId, worker: Worker) -> Response:
    """What was shown and why, while exposures are kept. A page that another worker showed is there a minute later."""
    pages = worker.get().pages
    user_id, page = pages.page(recommendation_id)
    return answer(_recorded(user_id, page, pages.score_parts(page)))


def _recorded(user_id: str, page: RecordedPage, scores: Sequence[ScoreParts] | None) -> RecordedRecommendation:
    return RecordedRecommendation(
        recommendation_id=page.recommendation_id,
        user_id=user_id,
        release=page.release,
        as_of=iso(page.as_of),
        request=RecordedRequest(
            limit=page.limit,
            category=page.category,
            context_item=page.context_item,
            exclude=page.exclude,
            device=page.device,
            surface=page.surface,
        ),
        fallback=page.fallback,
        candidates=page.candidates_count,
        removed=page.removed,
        items=[_item(page, place, None if scores is None else scores[place]) for place in range(len(page.items))],
    )


def _item(page: RecordedPage, place: int, parts: ScoreParts | None) -> RecordedItem:
    said = {name: SourceExplanation(rank=rank, score=score) for name, rank, score in page.said(place)}
    return RecordedItem(
        item_id=page.items[place],
        rank=place + 1,
        score=page.scores[place],
        sources=page.sources[place],
        reason=page.reasons[place],
        explanation=ItemExplanation(
            sources=said,
            propensity=page.propensities[place],
            score=None if parts is None else score_explanation(parts),
        ),
    )
