"""`/v1/indexes`: category databases that can be made and changed while they answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from indexer import IndexInfo, category_to_json, resolve_templates
from indexer.categories.unknown import unknown_warnings
from indexer.store import check_name
from service.http.bodies import read_categories_json, read_category_upload
from service.http.schemas import (
    INDEX_BODY,
    BriefIndex,
    CategoriesAnswer,
    ChangeBody,
    DeletedAnswer,
    IndexAnswer,
    IndexListAnswer,
    JobAnswer,
    RollbackBody,
    VersionAnswer,
    VersionsAnswer,
)
from service.http.services import Services, ServicesDep
from service.serving.jobs import Job

router = APIRouter(prefix="/v1/indexes", tags=["indexes"])
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": JobAnswer, "description": "A job; follow it at its Location"}
}


@router.get("", summary="List the indexes")
async def list_indexes(services: ServicesDep) -> IndexListAnswer:
    """Every index with its current version."""
    infos = await services.engine.run(services.store.list)
    return IndexListAnswer(indexes=[BriefIndex.of(info) for info in infos])


@router.get("/{name}", summary="Show an index")
async def show_index(
    name: str,
    services: ServicesDep,
    version: Annotated[int | None, Query(ge=1, description="default: the current one")] = None,
) -> IndexAnswer:
    """What an index was made of, and whether its current version is the one that answers."""
    info = await services.engine.run(lambda: services.store.info(name, version))
    return await _full(info, services)


@router.get("/{name}/categories", summary="List categories")
async def list_categories(
    name: str,
    services: ServicesDep,
    start: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> CategoriesAnswer:
    """Categories of the version that answers, in the index's order."""
    loaded = await services.indexes.categories(name)
    stop = min(start + limit, len(loaded.index))
    listed = [category_to_json(loaded.index.category(at)) for at in range(start, stop)]
    return CategoriesAnswer(version=loaded.version, total=len(loaded.index), categories=listed)


@router.get("/{name}/versions", summary="List kept versions")
async def list_versions(name: str, services: ServicesDep) -> VersionsAnswer:
    """The versions that can be rolled back to, oldest first."""
    store = services.store

    def read() -> list[VersionAnswer]:
        current = store.current_version(name)
        infos = [store.info(name, version) for version in store.versions(name)]
        return [VersionAnswer.of(info, current=info.version == current) for info in infos]

    return VersionsAnswer(name=name, versions=await services.engine.run(read))


@router.put(
    "/{name}",
    status_code=202,
    summary="Build an index",
    responses=_ACCEPTED,
    openapi_extra={"requestBody": INDEX_BODY},
)
async def build_index(
    name: str, request: Request, response: Response, services: ServicesDep
) -> JobAnswer:
    """Build a new version beside the current one, then swap. Answers 202 with a job."""
    check_name(name)
    services.jobs.check_free(name)
    upload = await read_category_upload(request)
    await services.engine.run(lambda: resolve_templates(upload.templates))
    _ = services.engine.encoder  # or an error at once
    job = services.index_changes.build(name, upload.categories, upload.templates, upload.options)
    return _accepted(job, response)


@router.patch("/{name}", status_code=202, summary="Add or remove categories", responses=_ACCEPTED)
async def change_index(
    name: str, body: ChangeBody, response: Response, services: ServicesDep
) -> JobAnswer:
    """Encode only what is new, publish it as a new version, then swap. Answers 202 with a job."""
    services.jobs.check_free(name)
    services.store.current_version(name)
    added = read_categories_json(body.add, param="add") if body.add else []
    return _accepted(services.index_changes.change(name, added, body.remove), response)


@router.post("/{name}/rollback", summary="Put a version back")
async def roll_back(name: str, body: RollbackBody, services: ServicesDep) -> IndexAnswer:
    """Make a kept version current again; requests that begin after this get its answers."""
    services.jobs.check_free(name)
    await services.index_changes.roll_back(name, body.version)
    info = await services.engine.run(lambda: services.store.info(name))
    return await _full(info, services)


@router.delete("/{name}", summary="Delete an index")
async def delete_index(name: str, services: ServicesDep) -> DeletedAnswer:
    """Remove an index with all its versions; requests in flight still get their answers."""
    services.jobs.check_free(name)

    def delete() -> None:
        services.store.delete(name)
        services.core.assignments.unassign(name)

    await services.engine.run(delete)
    services.adapters.forget(name)
    services.indexes.forget(name)
    return DeletedAnswer(name=name)


def _accepted(job: Job, response: Response) -> JobAnswer:
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobAnswer.of(job)


async def _full(info: IndexInfo, services: Services) -> IndexAnswer:
    about, manifest = info.manifest, info.manifest.as_json()
    name = info.name
    loaded = services.indexes.in_memory(name)
    problem = services.indexes.problem(name) or services.adapters.problem(name)
    if problem is None and loaded is None:
        # No request has asked for it yet: what its manifest says is known all the same.
        fingerprint = services.engine.encoder.fingerprint
        problem = await services.engine.run(lambda: services.core.problem_of(name, fingerprint))
    adapter = services.adapters.current(name)
    return IndexAnswer.of(
        info,
        served_version=loaded.version if loaded else None,
        adapter=str(adapter) if adapter else None,
        problem=str(problem) if problem else None,
        rows=manifest["rows"],
        dim=manifest["dim"],
        fingerprint=manifest["model"]["fingerprint"],
        templates=manifest["templates"],
        layout=manifest["layout"],
        calibration=manifest["calibration"],
        warnings=list(unknown_warnings(about.unknown_names, about.unknown_count, about.model.id)),
        bytes=sum(record["bytes"] for record in manifest["files"].values()),
    )
