"""Small decisions about indexes that HTTP and the command line have in common."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from indexer import CategoryIndex, ImageIndex, IndexStore, LayoutOptions
from indexer.errors import BrokenIndexError, UnknownIndexError, UnknownVersionError, WrongModelError
from indexer.vectors.prompt_cache import PromptCache
from models.errors import ClipdexError
from service.errors import IndexKindError
from service.inference.engine import Engine


def version_before(store: IndexStore, name: str) -> int:
    """The kept version before the one in force.

    Raises: UnknownIndexError, UnknownVersionError.
    """
    current = store.current_version(name)
    older = [version for version in store.versions(name) if version < current]
    if not older:
        raise UnknownVersionError(
            f"the index {name!r} has no version before {current}", param="version"
        )
    return older[-1]


def layout_options(recall: float | None, memory_mb: float | None) -> LayoutOptions:
    """The options that were given, the defaults for the others. Raises: LayoutError."""
    default = LayoutOptions()
    return LayoutOptions(recall=default.recall if recall is None else recall, memory_mb=memory_mb)


def kind_error(name: str, kind: str) -> IndexKindError:
    """What to say where an index of this kind is no use."""
    if kind == "images":
        message = "holds images; search it (POST /v1/search, clipdex search)"
    else:
        message = "holds categories; compare with it (POST /v1/classify, clipdex classify)"
    return IndexKindError(f"the index {name!r} {message}", param="index")


def current_of_kind(store: IndexStore, name: str, kind: str) -> int:
    """The version in force of an index that must be of this kind.

    Raises: UnknownIndexError, BrokenIndexError, IndexKindError.
    """
    info = store.info(name)
    if info.manifest.kind != kind:
        raise kind_error(name, info.manifest.kind)
    return info.version


# ---- The indexes that answer requests: loaded once, swapped in one step, shared by all.
#
# A request holds the index it began with; a swap only changes what the next request gets. What
# other
# processes publish is noticed at the next request, loaded beside, and swapped in when it is whole.


log = logging.getLogger("clipdex")


# Indexes held in memory; beyond that the one unused for longest is dropped.
_RESIDENT = 32


# How long an answer may be of a version that another process has just replaced, in seconds; a
# change that came through this one shows at once.
_LOOK_AGAIN = 0.1


AnyIndex = CategoryIndex | ImageIndex


Held = TypeVar("Held", bound=AnyIndex, covariant=True)


@dataclass(frozen=True)
class Served(Generic[Held]):
    """An index in memory. name and version are None for ad-hoc labels.

    mark: tells the version from one of the same number in an index that was deleted and made anew
    """

    name: str | None
    version: int | None
    index: Held
    mark: object = None


class Catalog:
    """Named indexes by way of the store, and ad-hoc ones by way of the encoder.

    prompts: vectors of prompts that were encoded for some index before

    Lives on the event loop; loading and building happen on the engine's threads.
    """

    def __init__(self, store: IndexStore, prompts: PromptCache, engine: Engine) -> None:
        self.store = store
        self.prompts = prompts
        self._engine = engine
        self._served: OrderedDict[str, Served[AnyIndex]] = OrderedDict()
        self._look_again: dict[str, float] = {}  # when the disk is asked for a newer version
        self._loading: dict[tuple[str, int], asyncio.Task[Served[AnyIndex]]] = {}
        self._refused: dict[str, tuple[object, ClipdexError]] = {}
        self._swaps: set[asyncio.Task[None]] = set()  # the event loop alone would let them be lost
        self._adhoc: OrderedDict[object, CategoryIndex] = OrderedDict()

    async def categories(self, name: str) -> Served[CategoryIndex]:
        """The index of categories to answer with. Raises: as `get`; IndexKindError."""
        served = await self.get(name)
        if not isinstance(served.index, CategoryIndex):
            raise kind_error(name, "images")
        return cast(Served[CategoryIndex], served)

    async def images(self, name: str) -> Served[ImageIndex]:
        """The index of images to answer with. Raises: as `get`; IndexKindError."""
        served = await self.get(name)
        if not isinstance(served.index, ImageIndex):
            raise kind_error(name, "categories")
        return cast(Served[ImageIndex], served)

    async def get(self, name: str) -> Served[AnyIndex]:
        """The index to answer with, whatever it holds.

        Raises: UnknownIndexError, BrokenIndexError, WrongModelError, NotReadyError.
        """
        served = self._served.get(name)
        now = time.monotonic()
        if served is not None and now < self._look_again.get(name, 0):
            return served
        try:
            version = self.store.current_version(name)
        except UnknownIndexError:
            self.forget(name)
            raise
        self._look_again[name] = now + _LOOK_AGAIN
        if served is None:
            return await self._first(name, version)
        self._served.move_to_end(name)
        mark = self._mark(name, version)
        if served.mark != mark and self._refused.get(name, (None,))[0] != mark:
            self._load_beside(name, version)
        return served

    def resident(self, name: str) -> Served[AnyIndex] | None:
        """What answers for `name` now, if it is in memory."""
        return self._served.get(name)

    def refused(self, name: str) -> ClipdexError | None:
        """Why the version in force on disk doesn't answer, if it doesn't."""
        mark, error = self._refused.get(name, (None, None))
        served = self._served.get(name)
        return error if served is None or served.mark != mark else None

    def install(self, name: str, version: int, index: AnyIndex) -> None:
        """Answer with this published version from the next request on."""
        self._served[name] = Served(name, version, index, self._mark(name, version))
        self._served.move_to_end(name)
        self._refused.pop(name, None)
        while len(self._served) > _RESIDENT:
            self.forget(next(iter(self._served)))

    def forget(self, name: str) -> None:
        """Drop a deleted index."""
        self._served.pop(name, None)
        self._refused.pop(name, None)
        self._look_again.pop(name, None)

    async def load(self, name: str, version: int) -> Served[AnyIndex]:
        """Read a version into memory without installing it; one reading serves all who ask.

        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError, WrongModelError,
        NotReadyError.
        """
        task = self._loading.get((name, version))
        if task is None:
            fingerprint = self._engine.encoder.fingerprint
            task = asyncio.create_task(self._read(name, version, fingerprint))
            self._loading[name, version] = task
            task.add_done_callback(lambda done: self._loaded(name, version, done))
        # Whoever began the reading may be cancelled by its client; the others still want it.
        return await asyncio.shield(task)

    async def adhoc(
        self, key: object, build: Callable[[], CategoryIndex], *, keep: int
    ) -> Served[CategoryIndex]:
        """An index of a request's own labels, built on a thread unless it was kept from before."""
        index = self._adhoc.get(key)
        if index is None:
            index = await self._engine.run(build)
            self._adhoc[key] = index
        self._adhoc.move_to_end(key)
        while len(self._adhoc) > keep:
            self._adhoc.popitem(last=False)
        return Served(None, None, index)

    async def _read(self, name: str, version: int, fingerprint: str) -> Served[AnyIndex]:
        def read() -> Served[AnyIndex]:
            mark = self._mark(name, version)
            images = self.store.info(name, version).manifest.kind == "images"
            load = self.store.load_images if images else self.store.load
            return Served(name, version, load(name, version, fingerprint=fingerprint), mark)

        return await self._engine.run(read)

    def _mark(self, name: str, version: int) -> object:
        try:
            found = (self.store.root / name / str(version) / "manifest.json").stat()
        except OSError:
            return version  # it is damaged; loading it says how
        return version, found.st_ino, found.st_mtime_ns

    def _loaded(self, name: str, version: int, done: asyncio.Task[Served[AnyIndex]]) -> None:
        del self._loading[name, version]
        if not done.cancelled():
            done.exception()  # marks it as seen, where everyone who asked has gone

    async def _first(self, name: str, version: int) -> Served[AnyIndex]:
        """Load the version in force; where it can't serve, the newest one that can."""
        try:
            served = await self.load(name, version)
        except (BrokenIndexError, WrongModelError) as error:
            log.error("index %s: version %d is refused: %s", name, version, error)
            self._refused[name] = (self._mark(name, version), error)
            served = await self._last_good(name, version, error)
            log.error("index %s: version %s answers instead", name, served.version)
        self._served.setdefault(name, served)
        while len(self._served) > _RESIDENT:
            self.forget(next(iter(self._served)))
        return served

    async def _last_good(self, name: str, refused: int, reason: ClipdexError) -> Served[AnyIndex]:
        for version in sorted(self.store.versions(name), reverse=True):
            if version != refused:
                try:
                    return await self.load(name, version)
                except (BrokenIndexError, WrongModelError, UnknownVersionError) as error:
                    log.error("index %s: version %d is refused too: %s", name, version, error)
        raise reason

    def _load_beside(self, name: str, version: int) -> None:
        if (name, version) in self._loading:
            return

        async def swap() -> None:
            try:
                served = await self.load(name, version)
            except ClipdexError as error:
                log.error("index %s: version %d is refused: %s", name, version, error)
                self._refused[name] = (self._mark(name, version), error)
            else:
                self.install(name, version, served.index)

        task = asyncio.create_task(swap())
        self._swaps.add(task)
        task.add_done_callback(self._swaps.discard)
