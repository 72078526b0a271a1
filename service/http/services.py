"""What the handlers of one app share, and how it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypedDict

from fastapi import Depends
from starlette.requests import Request

from indexer import CategoryIndex, IndexStore
from indexer.errors import UnknownIndexError
from models import Encoder
from models.errors import ClipdexError
from service.errors import ClientGoneError, SettingsError, UnforeseenError
from service.finetuning.runner import COMMAND
from service.finetuning.service import Finetunes
from service.inference.engine import Engine
from service.inference.metrics import Metrics
from service.inference.worker import StateName
from service.serving.changes import IndexChanges
from service.serving.core import DEFAULT, ServingCore
from service.serving.current_adapters import CurrentAdapters
from service.serving.current_indexes import CurrentIndexes
from service.serving.jobs import JobRegistry
from service.serving.promotion import AdapterChanges
from service.settings import Settings

log = logging.getLogger("clipdex")
# Seconds between two looks: at the model while it is being loaded, and at the data folder.
_POLL, _LOOK_AGAIN = 0.02, 0.25


@dataclass(frozen=True)
class Readiness:
    """Whether requests can be answered, and if not, why.

    problems: why an index can't be used as it is on disk, by its name; the default one included
    """

    ready: bool
    status: StateName | Literal["preparing"]
    reason: str = ""
    problems: dict[str, str] = field(default_factory=dict)


@dataclass
class Services:
    """Everything behind the paths.

    failure: why the server can never become ready, once that is known
    waits_for: why the default index doesn't answer; empty if it does
    """

    settings: Settings
    metrics: Metrics
    engine: Engine
    core: ServingCore
    indexes: CurrentIndexes
    adapters: CurrentAdapters
    index_changes: IndexChanges
    adapter_changes: AdapterChanges
    jobs: JobRegistry
    finetunes: Finetunes
    failure: ClipdexError | None = None
    waits_for: str = "the default index is being prepared"
    problems: dict[str, str] = field(default_factory=dict)
    _watching: asyncio.Task[None] | None = field(default=None, repr=False)
    _known: dict[str, tuple[object, str | None]] = field(default_factory=dict, repr=False)

    @property
    def store(self) -> IndexStore:
        """The indexes on disk."""
        return self.core.indexes

    def readiness(self) -> Readiness:
        """What /readyz says."""
        state = self.engine.state
        if self.failure is not None:
            return Readiness(False, "failed", self.failure.message)
        if state.name != "ready":
            return Readiness(False, state.name, state.reason)
        waits_for = self.waits_for
        if not waits_for:
            try:
                self.store.current_version(self.settings.index)
            except ClipdexError as error:  # deleted since the last look
                waits_for = error.message
        if waits_for:
            return Readiness(False, "preparing", waits_for, self.problems)
        return Readiness(True, "ready", problems=self.problems)

    def start(self) -> None:
        """Begin to load the model and the default index; returns at once."""
        self.engine.start()
        self.finetunes.start()
        self._watching = asyncio.create_task(self._prepare_and_watch())

    async def stop(self) -> None:
        """End jobs and threads."""
        if self._watching is not None:
            self._watching.cancel()
        await self.finetunes.stop()
        await self.jobs.stop()
        self.adapters.stop()
        self.engine.stop()

    async def _prepare_and_watch(self) -> None:
        try:
            while self.engine.state.name == "loading":
                await asyncio.sleep(_POLL)
            if self.engine.worker.failure is not None:
                raise self.engine.worker.failure
            if self.settings.index == DEFAULT:
                await self.index_changes.build_default_if_due()
            while True:
                await self._look_at_indexes()
                await asyncio.sleep(_LOOK_AGAIN)
        except ClipdexError as error:
            self.failure = error
        except OSError as error:
            self.failure = SettingsError(
                f"can't use the data folder {self.settings.data}: {error.strerror}", param="data"
            )
        except Exception as error:
            log.exception("preparing the server failed")
            self.failure = UnforeseenError(f"preparing the server failed: {error!r}")

    async def _look_at_indexes(self) -> None:
        """Note whether the default index answers, and which indexes this model can't use.

        What is wrong may be corrected meanwhile, over HTTP or by another process.
        """
        try:
            loaded = await self.indexes.get(self.settings.index)
            if isinstance(loaded.index, CategoryIndex):
                await self.adapters.get(self.settings.index, None)  # its adapter, too
            self.waits_for = ""
            fingerprint = self.engine.encoder.fingerprint
            found = await self.engine.run(lambda: self._find_problems(fingerprint))
        except ClipdexError as error:
            self.waits_for = error.message
            return
        except OSError as error:
            self.waits_for = f"can't read the data folder {self.settings.data}: {error.strerror}"
            return
        for name, problem in found.items():
            if self.problems.get(name) != problem:
                log.warning("index %s: %s", name, problem)
        self.problems = found

    def _find_problems(self, fingerprint: str) -> dict[str, str]:
        """Reads the manifests of the versions that are new since the last time."""
        known, self._known = self._known, {}
        for name in self.store.names():
            with contextlib.suppress(UnknownIndexError):  # deleted meanwhile
                mark = self.core.mark(name, self.store.current_version(name))
                if name in known and known[name][0] == mark:
                    self._known[name] = known[name]
                else:
                    problem = self.core.problem_of(name, fingerprint)
                    self._known[name] = (mark, problem.message if problem else None)
        return {name: problem for name, (_, problem) in self._known.items() if problem}


class LifespanState(TypedDict):
    """What Starlette puts into every request's state."""

    services: Services


def make_services(
    settings: Settings,
    load: Callable[[], Encoder] | None,
    metrics: Metrics,
    *,
    job_command: Sequence[str] = COMMAND,
) -> Services:
    """Put the parts together; nothing runs yet. Call on the event loop.

    load: makes the encoder; None for the settings' model
    """
    core = ServingCore(settings)
    engine = Engine(settings, load or core.load_model, metrics)
    indexes, jobs = CurrentIndexes(core, engine), JobRegistry()
    adapters = CurrentAdapters(core, indexes, engine, metrics)
    return Services(
        settings=settings,
        metrics=metrics,
        engine=engine,
        core=core,
        indexes=indexes,
        adapters=adapters,
        index_changes=IndexChanges(core, indexes, engine, jobs),
        adapter_changes=AdapterChanges(core, indexes, adapters, engine),
        jobs=jobs,
        finetunes=Finetunes(settings, command=job_command),
    )


@contextlib.asynccontextmanager
async def running(services: Services) -> AsyncIterator[LifespanState]:
    """The app's lifespan."""
    services.start()
    try:
        yield {"services": services}
    finally:
        await services.stop()


async def get_services(request: Request) -> Services:
    """The services of the app that the request came to.

    Async, though it awaits nothing: FastAPI sends every other kind of dependency through a thread.
    """
    services: Services = request.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


@contextlib.asynccontextmanager
async def cancelled_with_client(request: Request) -> AsyncIterator[None]:
    """Cancel what the block does when the client hangs up. The body must have been read.

    Raises: ClientGoneError in place of the cancellation.
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
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientGoneError("the client hung up") from None
    finally:
        watcher.cancel()
