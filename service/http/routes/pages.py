"""The pages `/` and `/docs`. Everything that they load comes from this server."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import jinja2
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from service.http.schemas import LandingAnswer
from service.http.services import ServicesDep

router = APIRouter(tags=["pages"])
_PAGE = Path(__file__).parents[1] / "page"
_LINKS = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "classify": "/v1/classify",
    "indexes": "/v1/indexes",
    "ready": "/readyz",
}
# Swagger UI sets style attributes and draws its icons from data URIs; it needs nothing else.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_templates = jinja2.Environment(loader=jinja2.FileSystemLoader(_PAGE), autoescape=True)


def mount_assets(app: FastAPI) -> None:
    """Serve Swagger UI's files, which the package fastapi-offline ships, and the page's script."""
    swagger = str(files("fastapi_offline").joinpath("static"))
    app.mount("/docs/swagger", StaticFiles(directory=swagger), name="swagger")
    app.mount("/docs/page", StaticFiles(directory=_PAGE), name="page")


@router.get(
    "/",
    summary="What this is, and where things are",
    response_model=LandingAnswer,
    responses={200: {"content": {"text/html": {}}}},
)
async def landing(request: Request, services: ServicesDep) -> Response | LandingAnswer:
    """HTML for browsers, JSON for everyone else."""
    model = services.settings.model
    if "text/html" not in request.headers.get("accept", ""):
        return LandingAnswer(name="clipdex", model=model, links=_LINKS)
    page = _templates.get_template("landing.html")
    return HTMLResponse(page.render(model=model, links=_LINKS, base_url=request.base_url))


@router.get("/docs", summary="The API's description", response_class=HTMLResponse)
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI, to read and to try out; it loads nothing from other hosts."""
    page = _templates.get_template("docs.html")
    root = request.scope.get("root_path", "").rstrip("/")
    content = page.render(title=request.app.title, root=root)
    return HTMLResponse(content, headers={"Content-Security-Policy": _POLICY})
