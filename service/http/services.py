"""What the handlers of one app share, and how it comes to life and goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict, TypeVar

from fastapi import Depends
from starlette.requests import Request

from indexer import CategoryIndex, IndexStore
from indexer.vectors.prompt_cache import PromptCache
from models import Encoder
from models.errors import ClipdexError
from service.errors import ClientGoneError, SettingsError, UnforeseenError
from service.finetuning.runner import COMMAND
from service.finetuning.service import Finetunes
from service.http.jobs import JobRegistry
from service.http.metrics import Metrics
from service.inference.engine import Engine
from service.serving.adapters import LiveAdapters
from service.serving.assignments import Bindings
from service.serving.catalog import Catalog
from service.serving.indexes import ensure_default
from service.serving.promotion import AdapterChanges
from service.settings import Settings

log = logging.getLogger("clipdex")


_POLL, _LOOK_AGAIN = 0.02, 0.25  # seconds


@dataclass(frozen=True)
class Readiness:
    """Whether requests can be answered, and if not, why."""

    ready: bool
    status: str
    reason: str = ""


@dataclass
class Services:
    """Everything behind the paths.

    failure: why the server can never become ready, once that is known
    """

    settings: Settings
    metrics: Metrics
    engine: Engine
    catalog: Catalog
    jobs: JobRegistry
    finetunes: Finetunes
    live: LiveAdapters
    changes: AdapterChanges
    failure: ClipdexError | None = None
    prepared: bool = False
    waits_for: str = "the default index is being prepared"
    _preparing: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def store(self) -> IndexStore:
        """The indexes on disk."""
        return self.catalog.store

    def readiness(self) -> Readiness:
        """What /readyz says."""
        state = self.engine.state
        if self.failure is not None:
            return Readiness(False, "failed", self.failure.message)
        if state.name != "ready":
            return Readiness(False, state.name, state.reason)
        if not self.prepared:
            return Readiness(False, "preparing", self.waits_for)
        return Readiness(True, "ready")

    def start(self) -> None:
        """Begin to load the model and the default index; returns at once."""
        self.engine.start()
        self.finetunes.start()
        self._preparing = asyncio.create_task(self._prepare())

    async def stop(self) -> None:
        """End jobs and threads."""
        if self._preparing is not None:
            self._preparing.cancel()
        await self.finetunes.stop()
        await self.jobs.stop()
        self.live.stop()
        self.engine.stop()

    async def _prepare(self) -> None:
        try:
            while self.engine.state.name == "loading":
                await asyncio.sleep(_POLL)
            if self.engine.worker.failure is not None:
                raise self.engine.worker.failure
            await ensure_default(self.settings.index, self.catalog, self.engine, self.jobs)
            await self._wait_for_index()
        except ClipdexError as error:
            self.failure = error
        except OSError as error:
            self.failure = SettingsError(
                f"can't use the data folder {self.settings.data}: {error.strerror}", param="data"
            )
        except Exception as error:
            log.exception("preparing the server failed")
            self.failure = UnforeseenError(f"preparing the server failed: {error!r}")

    async def _wait_for_index(self) -> None:
        """An index that isn't there, or is of another model, can be built over HTTP meanwhile."""
        while not self.prepared:
            try:
                served = await self.catalog.get(self.settings.index)
                if isinstance(served.index, CategoryIndex):
                    await self.live.get(self.settings.index, None)  # its adapter, too
                self.prepared = True
            except ClipdexError as error:
                self.waits_for = error.message
                await asyncio.sleep(_LOOK_AGAIN)


class LifespanState(TypedDict):
    """What Starlette puts into every request's state."""

    services: Services


def make_services(
    settings: Settings,
    load: Callable[[], Encoder],
    metrics: Metrics,
    *,
    job_command: Sequence[str] = COMMAND,
) -> Services:
    """Wire the parts together; nothing runs yet. Call on the event loop."""
    engine = Engine(settings, load, metrics)
    catalog = Catalog(IndexStore(settings.indexes), PromptCache(settings.prompt_cache), engine)
    live = LiveAdapters(settings, catalog, engine, metrics, Bindings(settings.adapters))
    return Services(
        settings=settings,
        metrics=metrics,
        engine=engine,
        catalog=catalog,
        jobs=JobRegistry(),
        finetunes=Finetunes(settings, command=job_command),
        live=live,
        changes=AdapterChanges(settings, live, catalog, engine),
    )


@contextlib.asynccontextmanager
async def running(services: Services) -> AsyncIterator[LifespanState]:
    """The app's lifespan."""
    services.start()
    try:
        yield {"services": services}
    finally:
        await services.stop()


# ---- What routes ask for in their signatures.


T = TypeVar("T")


async def get_services(request: Request) -> Services:
    """The services of the app that the request came to.

    Async, though it awaits nothing: FastAPI sends every other kind of dependency through a thread.
    """
    services: Services = request.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, but drop it when the client hangs up. The body must have been read.

    Raises: ClientGoneError; whatever `work` raises.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientGoneError("the client hung up") from None
    finally:
        watcher.cancel()
