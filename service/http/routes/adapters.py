"""`/v1/adapters`: what fine-tuning produced, and which of it answers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse

from service.http.finetune_schemas import (
    AdapterAnswer,
    AdapterListAnswer,
    AdapterRollbackBody,
    MovedAnswer,
    PromoteBody,
)
from service.http.schemas import DeletedAnswer
from service.http.services import ServicesDep
from service.serving.promotion import Moved, adapter_details, adapter_list

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])


@router.get("", summary="List the adapters", response_model=AdapterListAnswer)
async def list_adapters(services: ServicesDep) -> JSONResponse:
    """Every adapter with its versions, and the indexes that it answers for."""
    store, bindings = await services.live.store(), services.live.bindings

    found = await services.engine.run(lambda: adapter_list(store, bindings))
    return JSONResponse({"adapters": found})


@router.get("/{name}", summary="Show an adapter", response_model=AdapterAnswer)
async def show_adapter(
    name: str,
    services: ServicesDep,
    version: Annotated[
        int | None, Query(ge=1, description="default: the live one, or else the newest")
    ] = None,
) -> JSONResponse:
    """What a version was made of, and how it did against zero-shot."""
    store, bindings = await services.live.store(), services.live.bindings

    details = await services.engine.run(lambda: adapter_details(store, bindings, name, version))
    problems = [services.live.problem(index) for index in details["indexes"]]
    problem = next((str(problem) for problem in problems if problem is not None), None)
    return JSONResponse({**details, "problem": problem})


@router.post("/{name}/promote", summary="Let an adapter answer", response_model=MovedAnswer)
async def promote(name: str, body: PromoteBody, services: ServicesDep) -> dict[str, Any]:
    """Put a version before the gate, then let it answer for an index.

    A version that fails a test of the gate gets a 409 that names the tests; `force` goes past that
    verdict, and is logged.
    """
    moved = await services.changes.promote(name, body.version, index=body.index, force=body.force)
    return _moved(moved)


@router.post("/{name}/rollback", summary="Let the one before answer", response_model=MovedAnswer)
async def roll_back(name: str, body: AdapterRollbackBody, services: ServicesDep) -> dict[str, Any]:
    """Put the version back that was live before; where none was, zero-shot answers again."""
    return _moved(await services.changes.roll_back(name, body.version))


@router.delete("/{name}", summary="Delete an adapter", response_model=DeletedAnswer)
async def delete_adapter(name: str, services: ServicesDep) -> dict[str, Any]:
    """Remove an adapter with all its versions, unless it answers for an index."""
    await services.changes.delete(name)
    return {"name": name, "deleted": True}


def _moved(moved: Moved) -> dict[str, Any]:
    return {"name": moved.name, "version": moved.version, "indexes": list(moved.indexes)}
