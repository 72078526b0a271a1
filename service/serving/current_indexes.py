"""The indexes that answer a server's requests: loaded once, swapped in one step, shared by all.

A request keeps the index that it began with; a swap changes what the next request gets. A version
that another process publishes is noticed at the next request, loaded on a thread, and swapped in
when it is whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from indexer import CategoryIndex, ImageIndex
from indexer.errors import BrokenIndexError, UnknownIndexError, UnknownVersionError, WrongModelError
from models.errors import ClipdexError
from service.inference.engine import Engine
from service.serving.core import AnyIndex, LoadedIndex, ServingCore, categories_of, images_of

log = logging.getLogger("clipdex")
# Indexes held in memory; beyond that the one unused for longest is dropped.
_KEPT = 32
# How long an answer may be of a version that another process has just replaced, in seconds; a
# change that came through this process shows at once.
_LOOK_AGAIN = 0.1


class CurrentIndexes:
    """Named indexes from the data folder, and those of labels that requests bring along.

    Lives on the event loop; loading and building happen on the engine's threads.
    """

    def __init__(self, core: ServingCore, engine: Engine) -> None:
        self.core = core
        self.store = core.indexes
        self._engine = engine
        self._current: OrderedDict[str, LoadedIndex[AnyIndex]] = OrderedDict()
        self._look_again: dict[str, float] = {}  # when the disk is asked for a newer version
        self._loading: dict[tuple[str, int], asyncio.Task[LoadedIndex[AnyIndex]]] = {}
        self._refused: dict[str, tuple[object, ClipdexError]] = {}
        self._swaps: set[asyncio.Task[None]] = set()  # the event loop keeps no reference to them
        self._adhoc: OrderedDict[object, CategoryIndex] = OrderedDict()

    async def categories(self, name: str) -> LoadedIndex[CategoryIndex]:
        """The index of categories to answer with. Raises: as `get`; IndexKindError."""
        return categories_of(await self.get(name))

    async def images(self, name: str) -> LoadedIndex[ImageIndex]:
        """The index of images to answer with. Raises: as `get`; IndexKindError."""
        return images_of(await self.get(name))

    async def get(self, name: str) -> LoadedIndex[AnyIndex]:
        """The index to answer with, whatever it holds.

        Raises: UnknownIndexError, BrokenIndexError, WrongModelError, NotReadyError.
        """
        current = self._current.get(name)
        now = time.monotonic()
        if current is not None and now < self._look_again.get(name, 0):
            return current
        try:
            version = self.store.current_version(name)
        except UnknownIndexError:
            self.forget(name)
            raise
        self._look_again[name] = now + _LOOK_AGAIN
        if current is None:
            return await self._first(name, version)
        self._current.move_to_end(name)
        mark = self.core.mark(name, version)
        if current.mark != mark and self._refused.get(name, (None,))[0] != mark:
            self._load_beside(name, version)
        return current

    def in_memory(self, name: str) -> LoadedIndex[AnyIndex] | None:
        """What answers for `name` now, if it is in memory."""
        return self._current.get(name)

    def problem(self, name: str) -> ClipdexError | None:
        """Why the current version on disk doesn't answer as published, if it doesn't."""
        mark, error = self._refused.get(name, (None, None))
        current = self._current.get(name)
        if current is not None and current.problem is not None:
            return current.problem
        return error if current is None or current.mark != mark else None

    def install(self, name: str, version: int, index: AnyIndex) -> None:
        """Answer with this published version from the next request on."""
        self._swap_in(LoadedIndex(name, version, index, self.core.mark(name, version)))

    def forget(self, name: str) -> None:
        """Drop a deleted index."""
        self._current.pop(name, None)
        self._refused.pop(name, None)
        self._look_again.pop(name, None)

    async def load(self, name: str, version: int) -> LoadedIndex[AnyIndex]:
        """Read a version into memory without installing it; one reading serves all who ask.

        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError, WrongModelError,
        NotReadyError.
        """
        task = self._loading.get((name, version))
        if task is None:
            encoder = self._engine.shared_encoder(cached=False)
            reading = self._engine.run(lambda: self.core.load_index(name, version, encoder))
            task = asyncio.create_task(reading)
            self._loading[name, version] = task
            task.add_done_callback(lambda done: self._loaded(name, version, done))
        # Whoever began the reading may be cancelled by its client; the others still want it.
        return await asyncio.shield(task)

    async def adhoc(
        self, key: object, build: Callable[[], CategoryIndex], *, keep: int
    ) -> LoadedIndex[CategoryIndex]:
        """An index of a request's own labels, built on a thread unless it was kept from before."""
        index = self._adhoc.get(key)
        if index is None:
            index = await self._engine.run(build)
            self._adhoc[key] = index
        self._adhoc.move_to_end(key)
        while len(self._adhoc) > keep:
            self._adhoc.popitem(last=False)
        return LoadedIndex(None, None, index)

    def _swap_in(self, loaded: LoadedIndex[AnyIndex]) -> None:
        name = str(loaded.name)
        self._current[name] = loaded
        self._current.move_to_end(name)
        self._refused.pop(name, None)
        while len(self._current) > _KEPT:
            self.forget(next(iter(self._current)))

    def _loaded(self, name: str, version: int, done: asyncio.Task[LoadedIndex[AnyIndex]]) -> None:
        del self._loading[name, version]
        if not done.cancelled():
            done.exception()  # marks it as retrieved, where everyone who asked has gone

    async def _first(self, name: str, version: int) -> LoadedIndex[AnyIndex]:
        """Load the current version; where it can't be used, the newest one that can."""
        try:
            loaded = await self.load(name, version)
        except (BrokenIndexError, WrongModelError) as error:
            log.error("index %s: version %d is refused: %s", name, version, error)
            self._refused[name] = (self.core.mark(name, version), error)
            loaded = await self._last_good(name, version, error)
            log.error("index %s: version %s answers instead", name, loaded.version)
        self._current.setdefault(name, loaded)
        while len(self._current) > _KEPT:
            self.forget(next(iter(self._current)))
        return loaded

    async def _last_good(
        self, name: str, refused: int, reason: ClipdexError
    ) -> LoadedIndex[AnyIndex]:
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
                self._swap_in(await self.load(name, version))
            except ClipdexError as error:
                log.error("index %s: version %d is refused: %s", name, version, error)
                self._refused[name] = (self.core.mark(name, version), error)

        task = asyncio.create_task(swap())
        self._swaps.add(task)
        task.add_done_callback(self._swaps.discard)
