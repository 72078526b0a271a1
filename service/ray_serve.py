"""The HTTP app as a Ray Serve deployment: the same app in several processes, as many as are needed.

    serve run service.ray_serve:app data=/data index=animals max_replicas=8

What isn't said there comes from the environment of whoever builds the application, once, as
anywhere else; the replicas get it from there, whatever their own node's environment says. The data
folder must be one that every node sees under the same path.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ray import serve
from starlette.types import Message, Receive, Scope, Send

from service.errors import NotReadyError, SettingsError
from service.http.app import create_app
from service.http.services import Services
from service.serving.core import DEFAULT
from service.settings import Settings, read_settings

_POLL = 0.02  # seconds
# Requests that one replica works at: enough to fill the encoder's batches from all of them.
_AT_ONCE = 64
# States of the encoder that end only with its process.
_FINAL = ("failed", "stuck")


class ServeArguments(BaseModel):
    """What `serve run` and a RayService's `args` can say.

    The first six stand for the settings of the same name. cpus, gpus: what Ray reserves for one
    replica; requests: how many at work in one replica make the autoscaler content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    index: str | None = None
    data: str | None = None
    backend: str | None = None
    device: str | None = None
    precision: str | None = None
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(4, ge=1)
    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    requests: float = Field(16.0, gt=0, le=_AT_ONCE)

    @model_validator(mode="after")
    def _least_is_not_above_most(self) -> ServeArguments:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas ({self.min_replicas}) is above max_replicas ({self.max_replicas})"
            )
        return self

    def settings(self) -> Settings:
        """Settings of every replica. Raises: SettingsError."""
        given = self.model_dump(
            include={"model", "index", "data", "backend", "device", "precision"}
        )
        settings = read_settings(**given)
        # Replicas start in folders of their own.
        return settings.model_copy(update={"data": settings.data.absolute()})


def app(arguments: dict[str, str]) -> serve.Application:
    """The application that `serve run service.ray_serve:app KEY=VALUE...` runs.

    Raises: SettingsError.
    """
    chosen = _read_arguments(arguments)
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="clipdex",
        max_ongoing_requests=_AT_ONCE,
        ray_actor_options={"num_cpus": chosen.cpus, "num_gpus": chosen.gpus},
        autoscaling_config={
            "min_replicas": chosen.min_replicas,
            "max_replicas": chosen.max_replicas,
            "target_ongoing_requests": chosen.requests,
        },
    )
    return deployment.bind(chosen.settings())


class Replica:
    """One process that answers. It gets no request before its model and index are loaded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prepared = False

    def __serve_build_asgi_app__(self) -> RequestIdMiddleware:
        """Ray Serve calls this in the replica's process."""
        self._app = create_app(self._settings)
        return RequestIdMiddleware(self._app)

    async def check_health(self) -> None:
        """Ray Serve asks once before it sends requests, and then again and again.

        Raises: ClipdexError, and the replica is replaced by a new one.
        """
        services: Services = self._app.state.services
        if not self._prepared:
            await _prepared(services)
            self._prepared = True
        state = services.engine.state
        if services.failure is not None:
            raise services.failure
        if state.name in _FINAL:
            raise NotReadyError(state.reason)


class RequestIdMiddleware:
    """ASGI between Ray Serve and the app: adds what uvicorn does and Serve doesn't."""

    def __init__(self, inner: FastAPI) -> None:
        self._inner = inner
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or the start and the end of the replica."""
        if scope["type"] == "lifespan":
            await self._inner({**scope, "state": self._state}, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Serve's proxy adds the request's id itself; twice, it would read "id, id".
                kept = [item for item in message["headers"] if item[0] != b"x-request-id"]
                message = {**message, "headers": kept}
            await send(message)

        await self._inner({**scope, "state": dict(self._state)}, receive, answer)


async def _prepared(services: Services) -> None:
    """Return once requests can be answered.

    An index other than the default one isn't waited for: where the app alone would say "not ready"
    until somebody builds it, a replica that never gets ready would hold up all others.

    Raises: ClipdexError if they never can.
    """
    name = services.settings.index
    if name != DEFAULT:
        services.store.current_version(name)
    while not services.readiness().ready:
        if services.failure is not None:
            raise services.failure
        if services.engine.state.name == "ready" and name != DEFAULT:
            await services.indexes.get(name)
        await asyncio.sleep(_POLL)


def _read_arguments(arguments: dict[str, str]) -> ServeArguments:
    try:
        return ServeArguments.model_validate(arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}: {reason}" if name else reason, param=name or None) from error
