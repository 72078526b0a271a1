"""`/v1/indexes`: category databases that can be made and changed while they answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse

from indexer import IndexInfo, category_to_json, resolve_templates
from indexer.store import check_name
from service.http.bodies import read_categories_json, read_category_upload
from service.http.jobs import Job
from service.http.schemas import (
    INDEX_BODY,
    CategoriesAnswer,
    ChangeBody,
    DeletedAnswer,
    IndexAnswer,
    IndexListAnswer,
    JobAnswer,
    RollbackBody,
    VersionsAnswer,
)
from service.http.services import Services, ServicesDep
from service.serving.indexes import build_work, change_work, roll_back_to

router = APIRouter(prefix="/v1/indexes", tags=["indexes"])
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": JobAnswer, "description": "A job; follow it at its Location"}
}


@router.get("", summary="List the indexes", response_model=IndexListAnswer)
async def list_indexes(services: ServicesDep) -> dict[str, Any]:
    """Every index with its version in force."""
    infos = await services.engine.run(services.store.list)
    return {"indexes": [_brief(info) for info in infos]}


@router.get("/{name}", summary="Show an index", response_model=IndexAnswer)
async def show_index(
    name: str,
    services: ServicesDep,
    version: Annotated[int | None, Query(ge=1, description="default: the one in force")] = None,
) -> JSONResponse:
    """What an index was made of, and whether the version in force is the one that answers."""
    info = await services.engine.run(lambda: services.store.info(name, version))
    return JSONResponse(_full(info, services))


@router.get("/{name}/categories", summary="List categories", response_model=CategoriesAnswer)
async def list_categories(
    name: str,
    services: ServicesDep,
    start: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> JSONResponse:
    """Categories of the version in force, in the index's order."""
    served = await services.catalog.categories(name)
    stop = min(start + limit, len(served.index))
    listed = [category_to_json(served.index.category(at)) for at in range(start, stop)]
    total = len(served.index)
    return JSONResponse({"version": served.version, "total": total, "categories": listed})


@router.get("/{name}/versions", summary="List kept versions", response_model=VersionsAnswer)
async def list_versions(name: str, services: ServicesDep) -> dict[str, Any]:
    """The versions that can be rolled back to, oldest first."""
    store = services.store

    def read() -> dict[str, Any]:
        current = store.current_version(name)
        infos = [store.info(name, version) for version in store.versions(name)]
        return {
            "name": name,
            "versions": [{**_brief(i), "current": i.version == current} for i in infos],
        }

    return await services.engine.run(read)


@router.put(
    "/{name}",
    status_code=202,
    summary="Build an index",
    responses=_ACCEPTED,
    openapi_extra={"requestBody": INDEX_BODY},
)
async def build_index(name: str, request: Request, services: ServicesDep) -> JSONResponse:
    """Build a new version beside the one in force, then swap. Answers 202 with a job."""
    check_name(name)
    services.jobs.check_free(name)
    upload = await read_category_upload(request)
    await services.engine.run(lambda: resolve_templates(upload.templates))
    _ = services.engine.encoder
    work = build_work(
        name,
        upload.categories,
        upload.templates,
        upload.options,
        services.catalog,
        services.engine,
    )
    return _accepted(services.jobs.start("build", name, work))


@router.patch("/{name}", status_code=202, summary="Add or remove categories", responses=_ACCEPTED)
async def change_index(name: str, body: ChangeBody, services: ServicesDep) -> JSONResponse:
    """Encode only what is new, publish it as a new version, then swap. Answers 202 with a job."""
    services.jobs.check_free(name)
    services.store.current_version(name)
    added = read_categories_json(body.add, param="add") if body.add else []
    work = change_work(name, added, body.remove, services.catalog, services.engine)
    return _accepted(services.jobs.start("change", name, work))


@router.post("/{name}/rollback", summary="Put a version back", response_model=IndexAnswer)
async def roll_back(name: str, body: RollbackBody, services: ServicesDep) -> JSONResponse:
    """Put a kept version back in force; requests that begin after this get its answers."""
    services.jobs.check_free(name)
    await roll_back_to(name, body.version, services.catalog, services.engine)
    info = await services.engine.run(lambda: services.store.info(name))
    return JSONResponse(_full(info, services))


@router.delete("/{name}", summary="Delete an index", response_model=DeletedAnswer)
async def delete_index(name: str, services: ServicesDep) -> dict[str, Any]:
    """Remove an index with all its versions; requests in flight still get their answers."""
    services.jobs.check_free(name)

    def delete() -> None:
        services.store.delete(name)
        services.live.bindings.unbind(name)

    await services.engine.run(delete)
    services.live.forget(name)
    services.catalog.forget(name)
    return {"name": name, "deleted": True}


def _accepted(job: Job) -> JSONResponse:
    return JSONResponse(job.as_json(), 202, {"Location": f"/v1/jobs/{job.id}"})


def _brief(info: IndexInfo) -> dict[str, Any]:
    manifest = info.manifest
    return {
        "name": info.name,
        "version": info.version,
        "versions": list(info.versions),
        "kind": manifest.kind,
        "count": manifest.count,
        "model": manifest.model.id,
        "created": manifest.created,
    }


def _full(info: IndexInfo, services: Services) -> dict[str, Any]:
    manifest = info.manifest.as_json()
    resident = services.catalog.resident(info.name)
    refused = services.catalog.refused(info.name) or services.live.problem(info.name)
    adapter = services.live.in_force(info.name)
    return {
        **_brief(info),
        "served_version": resident.version if resident else None,
        "adapter": str(adapter) if adapter else None,
        "problem": str(refused) if refused else None,
        "rows": manifest["rows"],
        "dim": manifest["dim"],
        "fingerprint": manifest["model"]["fingerprint"],
        "templates": manifest["templates"],
        "layout": manifest["layout"],
        "calibration": manifest["calibration"],
        "bytes": sum(record["bytes"] for record in manifest["files"].values()),
    }
