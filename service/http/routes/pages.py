"""What a browser or a curious client finds at `/` and `/docs`."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from service.http.docs_page import docs_page
from service.http.services import ServicesDep

router = APIRouter(tags=["pages"])
_LINKS = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "classify": "/v1/classify",
    "indexes": "/v1/indexes",
    "ready": "/readyz",
}


@router.get("/", summary="What this is, and where things are", response_class=Response)
async def landing(request: Request, services: ServicesDep) -> Response:
    """HTML for browsers, JSON for everyone else."""
    model = services.settings.model
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"name": "clipdex", "model": model, "links": _LINKS})
    links = "".join(f'<li><a href="{path}">{name}</a></li>' for name, path in _LINKS.items())
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>clipdex</title>'
        f"<h1>clipdex</h1><p>Zero-shot image recognition over REST.</p><ul>{links}</ul>"
        "<pre>curl -F files=@picture.png "
        f"{escape(str(request.base_url))}v1/classify</pre></html>"
    )


@router.get("/docs", summary="This page", response_class=HTMLResponse)
async def docs(request: Request) -> HTMLResponse:
    """The API's description; loads nothing from other hosts."""
    return HTMLResponse(docs_page(request.app.openapi()))
