"""The HTTP app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from models import Encoder
from service.finetuning.runner import COMMAND
from service.http import problems
from service.http.middleware import RequestMiddleware
from service.http.problems import ErrorAnswer
from service.http.routes import (
    adapters,
    classify,
    embeddings,
    finetunes,
    health,
    indexes,
    jobs,
    pages,
    search,
)
from service.http.services import LifespanState, make_services, running
from service.inference.metrics import Metrics
from service.settings import Settings, read_settings


def create_app(
    settings: Settings | None = None,
    *,
    load: Callable[[], Encoder] | None = None,
    job_command: Sequence[str] = COMMAND,
) -> FastAPI:
    """The app; the model is loaded when it starts, not here.

    settings: read from the environment if not given
    load: makes the encoder, instead of the settings' model; called again if
        the encoder dies
    job_command: of a fine-tuning job's process, see `service.finetuning.process`

    Raises: SettingsError.
    """
    chosen = settings if settings is not None else read_settings()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[LifespanState]:
        services = make_services(chosen, load, metrics, job_command=job_command)
        app.state.services = services
        async with running(services) as state:
            yield state

    app = FastAPI(
        title="clipdex",
        version="0.1.0",
        summary="Zero-shot image recognition: categories in words, answers over REST.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": ErrorAnswer, "description": "Any error, in this shape"}},
    )
    app.add_middleware(
        RequestMiddleware,
        max_body_bytes=chosen.max_body_bytes,
        larger={finetunes.PATH: chosen.finetune_upload_bytes},
        metrics=metrics,
    )
    problems.register(app)
    for routes in (pages, classify, indexes, jobs, finetunes, adapters, search, embeddings, health):
        app.include_router(routes.router)
    pages.mount_assets(app)
    return app
