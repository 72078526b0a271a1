"""`/v1/adapters`: what fine-tuning produced, and which of it answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.http.finetune_schemas import (
    AdapterAnswer,
    AdapterListAnswer,
    AdapterRollbackBody,
    BriefAdapter,
    MovedAnswer,
    PromoteBody,
)
from service.http.schemas import DeletedAnswer
from service.http.services import ServicesDep
from service.serving.promotion import Move, adapter_details, adapter_list

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])


@router.get("", summary="List the adapters")
async def list_adapters(services: ServicesDep) -> AdapterListAnswer:
    """Every adapter with its versions, and the indexes that it answers for."""
    found = await services.engine.run(lambda: adapter_list(services.core))
    return AdapterListAnswer(adapters=[BriefAdapter(**about) for about in found])


@router.get("/{name}", summary="Show an adapter")
async def show_adapter(
    name: str,
    services: ServicesDep,
    version: Annotated[
        int | None, Query(ge=1, description="default: the current one, or else the newest")
    ] = None,
) -> AdapterAnswer:
    """What a version was made of, and how it did against zero-shot."""
    details = await services.engine.run(lambda: adapter_details(services.core, name, version))
    problems = [services.adapters.problem(index) for index in details["indexes"]]
    problem = next((str(problem) for problem in problems if problem is not None), None)
    return AdapterAnswer(**details, problem=problem)


@router.post("/{name}/promote", summary="Let an adapter answer")
async def promote(name: str, body: PromoteBody, services: ServicesDep) -> MovedAnswer:
    """Put a version before the gate, then let it answer for an index.

    A version that fails a test of the gate gets a 409 that names the tests; `force` goes past that
    verdict, and is logged.
    """
    changes = services.adapter_changes
    return _moved(await changes.promote(name, body.version, index=body.index, force=body.force))


@router.post("/{name}/rollback", summary="Let the one before answer")
async def roll_back(name: str, body: AdapterRollbackBody, services: ServicesDep) -> MovedAnswer:
    """Put the version back that was current before; where none was, zero-shot answers again."""
    return _moved(await services.adapter_changes.roll_back(name, body.version))


@router.delete("/{name}", summary="Delete an adapter")
async def delete_adapter(name: str, services: ServicesDep) -> DeletedAnswer:
    """Remove an adapter with all its versions, unless it answers for an index."""
    await services.adapter_changes.delete(name)
    return DeletedAnswer(name=name)


def _moved(move: Move) -> MovedAnswer:
    return MovedAnswer(name=move.name, version=move.version, indexes=list(move.indexes))
