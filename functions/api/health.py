"""GET /health/live, /health/ready and /metrics."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from functions.api import access
from functions.api.models import HealthCheck, Live, Ready
from functions.api.parameters import answer, problems
from functions.api.problems import problem
from functions.api.worker import Worker

router = APIRouter(tags=["operations"])


@router.get("/health/live", dependencies=[access.ANYONE], response_model=Live)
async def health_live() -> Response:
    """The process answers; nothing else is asked."""
    return answer(Live(status="alive"))


@router.get("/health/ready", dependencies=[access.ANYONE], response_model=Ready, responses=problems(503))
def health_ready(worker: Worker) -> Response:
    """May traffic come? Every check by name; 503 when one fails."""
    checks = [HealthCheck(name=one.name, ok=one.ok, detail=one.detail) for one in worker.get().readiness.checks()]
    failed = [one for one in checks if not one.ok]
    if failed:
        text = "; ".join(f"{one.name}: {one.detail}" for one in failed)
        told = [one.model_dump() for one in checks]
        return problem(503, text, kind="not_ready", instance="/health/ready", checks=told)
    return answer(Ready(status="ready", checks=checks))


@router.get(
    "/metrics",
    dependencies=[access.OPERATOR],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus"}},
)
def metrics(worker: Worker) -> Response:
    """Counters and histograms in Prometheus' text format."""
    return Response(worker.get().metrics.text(), media_type=CONTENT_TYPE_LATEST)
