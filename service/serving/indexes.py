"""The index that answers when nobody has built one: about 300 everyday things."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from indexer import Category, CategoryIndex, IndexStore, LayoutOptions, Progress, read_categories
from indexer.categories.table import CategoryTable
from indexer.category_index import TABLE
from indexer.errors import BrokenIndexError, ConflictError, UnknownIndexError
from models import Encoder
from service.errors import NotReadyError
from service.http.jobs import Job, JobRegistry, Work
from service.inference.engine import Engine
from service.serving.catalog import Catalog, version_before

DEFAULT = "default"


DEFAULT_TEMPLATES = "pictogram"


CATEGORIES = Path(__file__).parents[1] / "default_categories.txt"


def default_is_due(store: IndexStore, fingerprint: str) -> bool:
    """Whether the default index has to be built: it isn't there, is of another model, or it is the
    bundled one as another version of clipdex wrote it.

    Raises: BrokenIndexError if it can't be read, and isn't the bundled one.
    """
    try:
        return store.info(DEFAULT).manifest.model.fingerprint != fingerprint
    except UnknownIndexError:
        return True
    except BrokenIndexError:
        if _is_bundled(store):
            return True
        raise


def default_categories(store: IndexStore) -> list[Category]:
    """Those of the default index of another model, or the bundled ones.

    Raises: BrokenIndexError.
    """
    try:
        index = store.load(DEFAULT)
    except UnknownIndexError:
        return read_categories(CATEGORIES)
    except BrokenIndexError:
        if _is_bundled(store):
            return read_categories(CATEGORIES)
        raise
    return [index.category(position) for position in range(len(index))]


def _is_bundled(store: IndexStore) -> bool:
    """Whether an index that can't be read as a whole holds the bundled categories and no others."""
    folder = store.root / DEFAULT / str(store.current_version(DEFAULT))
    try:
        return list(CategoryTable.read(folder / TABLE)) == read_categories(CATEGORIES)
    except BrokenIndexError:
        return False


# ---- Building, changing, rolling back and deleting indexes while they are served.
#
# Every change is a new version made beside the one in force. It answers from the moment at which it
# is published, to requests that begin after that.


log = logging.getLogger("clipdex")


_LOOK_AGAIN = 0.1  # seconds


Report = Callable[[Progress], None]


Make = Callable[[Encoder, Report], CategoryIndex]


def build_work(
    name: str,
    categories: Sequence[Category],
    templates: str | Sequence[str],
    options: LayoutOptions,
    catalog: Catalog,
    engine: Engine,
) -> Work:
    """A job that builds an index from nothing but prompts that were encoded before."""

    def make(encoder: Encoder, report: Report) -> CategoryIndex:
        return CategoryIndex.build(
            categories,
            encoder,
            templates=templates,
            options=options,
            cache=catalog.prompts,
            on_progress=report,
        )

    async def work(job: Job) -> dict[str, Any]:
        return await _publish(job, name, make, None, catalog, engine)

    return work


def change_work(
    name: str,
    add: Sequence[Category],
    remove: Sequence[str],
    catalog: Catalog,
    engine: Engine,
) -> Work:
    """A job that makes a new version from the one in force, encoding only what is added."""

    async def work(job: Job) -> dict[str, Any]:
        served = await catalog.categories(name)
        problem = catalog.refused(name)
        if problem is not None:
            raise problem

        def make(encoder: Encoder, report: Report) -> CategoryIndex:
            return served.index.changed(
                encoder, add=add, remove=remove, cache=catalog.prompts, on_progress=report
            )

        return await _publish(job, name, make, served.version, catalog, engine)

    return work


async def ensure_default(name: str, catalog: Catalog, engine: Engine, jobs: JobRegistry) -> None:
    """Build the bundled index if it is the one that answers and isn't there, or is of another
    model.

    Raises: BrokenIndexError if there is one, but it can't be read.
    """
    store, fingerprint = catalog.store, engine.encoder.fingerprint
    while name == DEFAULT and await engine.run(lambda: default_is_due(store, fingerprint)):
        categories = await engine.run(lambda: default_categories(store))
        log.info("building the index %s: %d categories", name, len(categories))
        options = LayoutOptions()
        work = build_work(name, categories, DEFAULT_TEMPLATES, options, catalog, engine)
        job = jobs.start("build", name, work)
        while not job.done:
            await job.changed.wait()
        if isinstance(job.error, ConflictError):
            await asyncio.sleep(_LOOK_AGAIN)  # another replica on this folder publishes the same
        elif job.error is not None:
            raise job.error


async def roll_back_to(name: str, version: int | None, catalog: Catalog, engine: Engine) -> None:
    """Put a kept version back in force, by default the one before.

    It is loaded first: a version that can't answer isn't put in force.
    Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError, WrongModelError,
    ConflictError.
    """
    store = catalog.store
    target = version if version is not None else version_before(store, name)
    served = await catalog.load(name, target)
    await engine.run(lambda: store.rollback(name, target))
    catalog.install(name, target, served.index)


async def _publish(
    job: Job, name: str, make: Make, base: int | None, catalog: Catalog, engine: Engine
) -> dict[str, Any]:
    """Make an index, publish it, let it answer.

    base: the version it was made from; if another one is in force by then, it isn't published
    """
    encoder = engine.shared_encoder(cached=False)
    loop = asyncio.get_running_loop()
    abandoned = threading.Event()

    def check() -> None:
        if abandoned.is_set():
            raise NotReadyError("the server is shutting down")

    def report(progress: Progress) -> None:
        check()
        loop.call_soon_threadsafe(job.report, progress)

    def build() -> tuple[CategoryIndex, int]:
        index = make(encoder, report)
        check()
        return index, catalog.store.publish(name, index, base=base)

    try:
        index, version = await engine.run(build)
    except asyncio.CancelledError:
        abandoned.set()
        raise
    catalog.install(name, version, index)
    return {"index": name, "version": version, "count": len(index)}
