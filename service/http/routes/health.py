"""Is it alive, can it answer, and how has it been doing."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from service.http.services import ServicesDep

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Liveness: the process answers")
async def healthz() -> dict[str, str]:
    """200 as long as the process runs; says nothing of the model."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Readiness: the model and the default index are loaded",
    responses={503: {"description": "Not now; `reason` says why"}},
)
async def readyz(services: ServicesDep) -> JSONResponse:
    """200 if classification would be answered now, 503 with a reason if not."""
    readiness = services.readiness()
    body = {"status": readiness.status, "model": services.settings.model}
    if readiness.ready:
        return JSONResponse(body)
    return JSONResponse({**body, "reason": readiness.reason}, 503, {"Retry-After": "1"})


@router.get("/metrics", summary="Measurements for Prometheus", response_class=Response)
async def metrics(services: ServicesDep) -> Response:
    """Counters and histograms in Prometheus's text format."""
    kind = "text/plain; version=0.0.4; charset=utf-8"
    return Response(services.metrics.exposition(), media_type=kind)
