"""Building, changing and rolling back indexes while a server answers with them.

Every change is a new version, made beside the current one. It answers from the moment at which it
is published, to requests that begin after that.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from indexer import Category, CategoryIndex, LayoutOptions, Progress
from indexer.errors import ConflictError
from models import Encoder
from service.errors import NotReadyError
from service.inference.engine import Engine
from service.serving.core import DEFAULT, Report, ServingCore, version_before
from service.serving.current_indexes import CurrentIndexes
from service.serving.jobs import Job, JobRegistry

log = logging.getLogger("clipdex")
_LOOK_AGAIN = 0.1  # seconds


class IndexChange(ABC):
    """A new version of an index, made by a job.

    base: the version that it is made from; if another one is current by the time it is ready, it
        isn't published. None: whatever is current is replaced
    """

    name: str
    base: int | None

    @abstractmethod
    def make(self, encoder: Encoder, report: Report) -> CategoryIndex:
        """The new version, not published. Blocks."""


@dataclass
class BuildDefault(IndexChange):
    """The bundled default index."""

    core: ServingCore
    name: str = DEFAULT
    base: int | None = None

    def make(self, encoder: Encoder, report: Report) -> CategoryIndex:
        """Encode the bundled categories."""
        return self.core.build_default(encoder, report)


@dataclass
class BuildIndex(IndexChange):
    """An index of given categories."""

    core: ServingCore
    name: str
    categories: Sequence[Category]
    templates: str | Sequence[str]
    options: LayoutOptions
    base: int | None = None

    def make(self, encoder: Encoder, report: Report) -> CategoryIndex:
        """Encode every prompt whose vector isn't in the cache."""
        return CategoryIndex.build(
            self.categories,
            encoder,
            templates=self.templates,
            options=self.options,
            cache=self.core.prompts,
            on_progress=report,
        )


@dataclass
class ChangeIndex(IndexChange):
    """A loaded version with some categories more, or fewer."""

    core: ServingCore
    name: str
    base: int | None
    index: CategoryIndex
    add: Sequence[Category]
    remove: Sequence[str]

    def make(self, encoder: Encoder, report: Report) -> CategoryIndex:
        """Encode what is added; the other vectors are kept."""
        return self.index.changed(
            encoder,
            add=self.add,
            remove=self.remove,
            cache=self.core.prompts,
            on_progress=report,
        )


class IndexChanges:
    """The changes of one server. Lives on the event loop; works on the engine's threads."""

    def __init__(
        self, core: ServingCore, indexes: CurrentIndexes, engine: Engine, jobs: JobRegistry
    ) -> None:
        self._core = core
        self._indexes = indexes
        self._engine = engine
        self._jobs = jobs

    def build(
        self,
        name: str,
        categories: Sequence[Category],
        templates: str | Sequence[str],
        options: LayoutOptions,
    ) -> Job:
        """Start to build an index from categories.

        Raises: ConflictError while another job changes it; QueueFullError.
        """
        change = BuildIndex(self._core, name, categories, templates, options)
        return self._jobs.start("build", name, lambda job: self._carry_out(job, change))

    def change(self, name: str, add: Sequence[Category], remove: Sequence[str]) -> Job:
        """Start to make a new version from the current one.

        Raises: ConflictError while another job changes it; QueueFullError.
        """
        return self._jobs.start("change", name, lambda job: self._change(job, name, add, remove))

    async def build_default_if_due(self) -> None:
        """Build the bundled default index if there is none, and wait until it is published.

        Raises: BrokenIndexError if there is one, but it can't be read.
        """
        change = BuildDefault(self._core)
        while await self._engine.run(self._core.default_is_due):
            log.info("building the index %s", DEFAULT)
            job = self._jobs.start("build", DEFAULT, lambda job: self._carry_out(job, change))
            while not job.done:
                await job.changed.wait()
            if isinstance(job.error, ConflictError):
                await asyncio.sleep(_LOOK_AGAIN)  # another replica on this folder publishes it
            elif job.error is not None:
                raise job.error

    async def roll_back(self, name: str, version: int | None) -> None:
        """Make a kept version current again, by default the one before the current one.

        It is loaded first: a version that can't answer doesn't become current.
        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError, WrongModelError,
        ConflictError.
        """
        store = self._core.indexes
        target = version if version is not None else version_before(store, name)
        loaded = await self._indexes.load(name, target)
        if loaded.problem is not None:
            raise loaded.problem
        await self._engine.run(lambda: store.rollback(name, target))
        self._indexes.install(name, target, loaded.index)

    async def _change(
        self, job: Job, name: str, add: Sequence[Category], remove: Sequence[str]
    ) -> dict[str, Any]:
        loaded = await self._indexes.categories(name)
        problem = self._indexes.problem(name)
        if problem is not None:
            raise problem
        change = ChangeIndex(self._core, name, loaded.version, loaded.index, add, remove)
        return await self._carry_out(job, change)

    async def _carry_out(self, job: Job, change: IndexChange) -> dict[str, Any]:
        """Make a version, publish it, let it answer."""
        making = _Making(self._core, change, self._engine.shared_encoder(cached=False), job)
        try:
            index, version = await self._engine.run(making.run)
        except asyncio.CancelledError:
            making.abandoned.set()
            raise
        self._indexes.install(change.name, version, index)
        result = {"index": change.name, "version": version, "count": len(index)}
        return {**result, "warnings": list(index.warnings)} if index.warnings else result


class _Making:
    """The part of a change that runs on a thread: make the version, then publish it.

    abandoned: set when the server stops; the thread ends at its next report
    """

    def __init__(self, core: ServingCore, change: IndexChange, encoder: Encoder, job: Job) -> None:
        self._core = core
        self._change = change
        self._encoder = encoder
        self._job = job
        self._loop = asyncio.get_running_loop()
        self.abandoned = threading.Event()

    def run(self) -> tuple[CategoryIndex, int]:
        index = self._change.make(self._encoder, self._report)
        self._check()
        store, change = self._core.indexes, self._change
        return index, store.publish(change.name, index, base=change.base)

    def _report(self, progress: Progress) -> None:
        self._check()
        self._loop.call_soon_threadsafe(self._job.report, progress)

    def _check(self) -> None:
        if self.abandoned.is_set():
            raise NotReadyError("the server is shutting down")
