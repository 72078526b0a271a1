"""Building, changing, rolling back and deleting indexes while they are served.

Every change is a new version made beside the one in force. It answers from the moment at which it
is published, to requests that begin after that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from indexer import Category, CategoryIndex, Progress, read_categories
from indexer.errors import UnknownIndexError
from models import Encoder
from service.catalog import Catalog
from service.engine import Engine
from service.jobs import Job, JobRegistry, Work

log = logging.getLogger("clipdex")
DEFAULT = "default"
DEFAULT_CATEGORIES = Path(__file__).parent / "default_categories.txt"
DEFAULT_TEMPLATES = "pictogram"
Report = Callable[[Progress], None]
Make = Callable[[Encoder, Report], CategoryIndex]


def build_work(
    name: str,
    categories: Sequence[Category],
    templates: str | Sequence[str],
    catalog: Catalog,
    engine: Engine,
) -> Work:
    """A job that builds an index from nothing."""

    def make(encoder: Encoder, report: Report) -> CategoryIndex:
        return CategoryIndex.build(categories, encoder, templates=templates, on_progress=report)

    return _publishing(name, make, catalog, engine)


async def ensure_default(name: str, catalog: Catalog, engine: Engine, jobs: JobRegistry) -> None:
    """Load the index that answers by default.

    If it is the bundled one and isn't there, or is of another model, it is built first.
    Raises: UnknownIndexError, BrokenIndexError, WrongModelError for any other.
    """
    if name == DEFAULT and not await engine.run(lambda: _fits(catalog, engine)):
        categories = await engine.run(lambda: _default_categories(catalog))
        log.info("building the index %s: %d categories", name, len(categories))
        work = build_work(name, categories, DEFAULT_TEMPLATES, catalog, engine)
        job = jobs.start("build", name, work)
        while not job.done:
            await job.changed.wait()
        if job.error is not None:
            raise job.error
    await catalog.get(name)


def _fits(catalog: Catalog, engine: Engine) -> bool:
    try:
        info = catalog.store.info(DEFAULT)
    except UnknownIndexError:
        return False
    return info.manifest.model.fingerprint == engine.encoder.fingerprint


def _default_categories(catalog: Catalog) -> list[Category]:
    """Those of the index that another model's vectors are in, or the bundled ones."""
    try:
        index = catalog.store.load(DEFAULT)
    except UnknownIndexError:
        return read_categories(DEFAULT_CATEGORIES)
    return [index.category(position) for position in range(len(index))]


def _publishing(name: str, make: Make, catalog: Catalog, engine: Engine) -> Work:
    async def work(job: Job) -> dict[str, Any]:
        encoder = engine.shared_encoder(cached=False)
        loop = asyncio.get_running_loop()

        def report(progress: Progress) -> None:
            loop.call_soon_threadsafe(job.report, progress)

        def build() -> tuple[CategoryIndex, int]:
            index = make(encoder, report)
            return index, catalog.store.publish(name, index)

        index, version = await engine.run(build)
        catalog.install(name, version, index)
        return {"index": name, "version": version, "count": len(index)}

    return work
