"""Is it alive, can it answer, and how has it been doing."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from service.http.schemas import LivenessAnswer, ReadinessAnswer
from service.http.services import ServicesDep

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Liveness: the process answers")
async def healthz() -> LivenessAnswer:
    """200 as long as the process runs; says nothing of the model."""
    return LivenessAnswer()


@router.get(
    "/readyz",
    summary="Readiness: the model and the default index are loaded",
    responses={503: {"model": ReadinessAnswer, "description": "Not now; `reason` says why"}},
    response_model_exclude_unset=True,
)
async def readyz(services: ServicesDep, response: Response) -> ReadinessAnswer:
    """200 if a classification would be answered now, 503 with a reason if not.

    `problems` names indexes that this server's model can't use as they are on disk.
    """
    readiness = services.readiness()
    answer = ReadinessAnswer(status=readiness.status, model=services.settings.model)
    if not readiness.ready:
        answer.reason = readiness.reason
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    if readiness.problems:
        answer.problems = readiness.problems
    return answer


@router.get("/metrics", summary="Measurements for Prometheus", response_class=Response)
async def metrics(services: ServicesDep) -> Response:
    """Counters and histograms in Prometheus's text format."""
    kind = "text/plain; version=0.0.4; charset=utf-8"
    return Response(services.metrics.exposition(), media_type=kind)
