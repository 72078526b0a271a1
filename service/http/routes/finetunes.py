"""`/v1/finetunes`: labelled images in, an adapter out, and how it is coming along."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from indexer import resolve_templates
from service.finetuning.intake import FinetuneOptions, read_finetune, staged, store_images
from service.finetuning.service import Finetunes, brief
from service.finetuning.webhook import check_callback
from service.http.finetune_schemas import FINETUNE_BODY, FinetuneAnswer, FinetuneListAnswer
from service.http.services import Services, ServicesDep

router = APIRouter(prefix="/v1/finetunes", tags=["finetunes"])
PATH = router.prefix
_PING = 15  # seconds of silence after which a comment is sent, so that no proxy hangs up


@router.post(
    "",
    status_code=202,
    summary="Train an adapter on labelled images",
    openapi_extra={"requestBody": FINETUNE_BODY},
)
async def start_finetune(
    request: Request, response: Response, services: ServicesDep
) -> FinetuneAnswer:
    """Check the images, then queue a job; whatever is wrong with them is told at once."""
    settings = services.settings
    job_id = secrets.token_hex(8)
    async with staged(settings) as folder:
        async with read_finetune(request, settings, folder) as intake:
            options = await _settled(services, intake.options)
            images = folder / "images"
            options["images"] = await store_images(intake, images, settings, services.engine)
        folder.rename(services.finetunes.folder(job_id))
    record = await services.finetunes.add(job_id, options)
    response.headers["Location"] = f"{PATH}/{record.id}"
    return await _described(services.finetunes, job_id)


@router.get("", summary="List fine-tuning jobs", response_model_exclude_unset=True)
async def list_finetunes(services: ServicesDep) -> FinetuneListAnswer:
    """Unfinished jobs and the last 200 finished ones, the newest first."""
    records = await asyncio.to_thread(services.finetunes.queue.records)
    return FinetuneListAnswer(finetunes=[FinetuneAnswer(**brief(record)) for record in records])


@router.get("/{job_id}", summary="Show a fine-tuning job")
async def show_finetune(job_id: str, services: ServicesDep) -> FinetuneAnswer:
    """How far it is, its epochs so far, and what became of it."""
    return await _described(services.finetunes, job_id)


@router.delete("/{job_id}", status_code=202, summary="Cancel a fine-tuning job")
async def cancel_finetune(job_id: str, services: ServicesDep) -> FinetuneAnswer:
    """End a job that hasn't ended: at once if it waits, after the step at hand if it trains."""
    await services.finetunes.cancel(job_id)
    return await _described(services.finetunes, job_id)


@router.get(
    "/{job_id}/events",
    summary="Follow a fine-tuning job",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"}},
)
async def follow_finetune(
    job_id: str,
    services: ServicesDep,
    last_event_id: Annotated[int, Header(ge=0, description="go on after this event")] = 0,
) -> Response:
    """Server-sent events from the job's beginning to its end; then it closes."""
    # Imported here, because it takes a quarter of a second that few servers ever need.
    from sse_starlette import EventSourceResponse

    await asyncio.to_thread(services.finetunes.queue.get, job_id)
    events = _events(services.finetunes, job_id, last_event_id)
    return EventSourceResponse(events, ping=_PING, sep="\n")


@router.get(
    "/{job_id}/report",
    summary="Read a fine-tuning job's report",
    response_class=Response,
    responses={200: {"content": {"text/html": {}}, "description": "A page of its own"}},
)
async def read_report(job_id: str, services: ServicesDep) -> Response:
    """The run's curves, the checklist and the diagnosis as one page of HTML."""
    path: Path = await asyncio.to_thread(services.finetunes.report, job_id)
    return FileResponse(path, media_type="text/html; charset=utf-8")


async def _settled(services: Services, asked: FinetuneOptions) -> dict[str, Any]:
    """The options with nothing left to choose.

    Raises: UnknownIndexError, IndexKindError, TemplateError, CallbackError.
    """
    if asked.callback_url is not None:
        check_callback(asked.callback_url, services.settings)
    index = asked.index or services.settings.index
    loaded = await services.indexes.categories(index)
    if asked.templates is not None:
        templates = resolve_templates(asked.templates).texts
    else:
        templates = (loaded.index.manifest.templates or {})["texts"]
    options = asked.model_dump()
    return options | {"index": index, "name": asked.name or index, "templates": list(templates)}


async def _described(finetunes: Finetunes, job_id: str) -> FinetuneAnswer:
    about = await asyncio.to_thread(lambda: finetunes.describe(finetunes.queue.get(job_id)))
    return FinetuneAnswer(**about)


async def _events(finetunes: Finetunes, job_id: str, after: int) -> AsyncIterator[dict[str, str]]:
    async for event, ended in finetunes.follow(job_id, after=after):
        if event is not None:
            yield {"id": str(event.number), "event": event.kind, "data": json.dumps(event.data)}
        else:
            yield {"event": "done", "data": json.dumps(ended)}
