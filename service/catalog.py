"""The indexes that answer requests: loaded once, swapped in one step, shared by all.

A request holds the index it began with; a swap only changes what the next request gets. What other
processes publish is noticed at the next request, loaded beside, and swapped in when it is whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from indexer import CategoryIndex, IndexStore
from indexer.errors import BrokenIndexError, UnknownIndexError, UnknownVersionError, WrongModelError
from indexer.prompt_cache import PromptCache
from models.errors import ClipdexError
from service.engine import Engine

log = logging.getLogger("clipdex")
# Indexes held in memory; beyond that the one unused for longest is dropped.
_RESIDENT = 32


@dataclass(frozen=True)
class Served:
    """An index in memory. name is None for ad-hoc labels."""

    name: str | None
    version: int | None
    index: CategoryIndex


class Catalog:
    """Named indexes by way of the store, and ad-hoc ones by way of the encoder.

    prompts: vectors of prompts that were encoded for some index before

    Lives on the event loop; loading and building happen on the engine's threads.
    """

    def __init__(self, store: IndexStore, prompts: PromptCache, engine: Engine) -> None:
        self.store = store
        self.prompts = prompts
        self._engine = engine
        self._served: OrderedDict[str, Served] = OrderedDict()
        self._loading: dict[tuple[str, int], asyncio.Task[Served]] = {}
        self._refused: dict[str, tuple[int, ClipdexError]] = {}
        self._swaps: set[asyncio.Task[None]] = set()  # the event loop alone would let them be lost
        self._adhoc: OrderedDict[object, CategoryIndex] = OrderedDict()

    async def get(self, name: str) -> Served:
        """The index to answer with.

        Raises: UnknownIndexError, BrokenIndexError, WrongModelError, NotReadyError.
        """
        try:
            version = self.store.current_version(name)
        except UnknownIndexError:
            self._served.pop(name, None)
            raise
        served = self._served.get(name)
        if served is None:
            return await self._first(name, version)
        self._served.move_to_end(name)
        if served.version != version and self._refused.get(name, (None,))[0] != version:
            self._load_beside(name, version)
        return served

    def resident(self, name: str) -> Served | None:
        """What answers for `name` now, if it is in memory."""
        return self._served.get(name)

    def refused(self, name: str) -> ClipdexError | None:
        """Why the version in force on disk doesn't answer, if it doesn't."""
        version, error = self._refused.get(name, (None, None))
        served = self._served.get(name)
        return error if served is None or served.version != version else None

    def install(self, name: str, version: int, index: CategoryIndex) -> None:
        """Answer with this version from the next request on."""
        self._served[name] = Served(name, version, index)
        self._served.move_to_end(name)
        self._refused.pop(name, None)
        while len(self._served) > _RESIDENT:
            self._served.popitem(last=False)

    def forget(self, name: str) -> None:
        """Drop a deleted index."""
        self._served.pop(name, None)
        self._refused.pop(name, None)

    async def load(self, name: str, version: int) -> Served:
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

    async def adhoc(self, key: object, build: Callable[[], CategoryIndex], *, keep: int) -> Served:
        """An index of a request's own labels, built on a thread unless it was kept from before."""
        index = self._adhoc.get(key)
        if index is None:
            index = await self._engine.run(build)
            self._adhoc[key] = index
        self._adhoc.move_to_end(key)
        while len(self._adhoc) > keep:
            self._adhoc.popitem(last=False)
        return Served(None, None, index)

    async def _read(self, name: str, version: int, fingerprint: str) -> Served:
        index = await self._engine.run(
            lambda: self.store.load(name, version, fingerprint=fingerprint)
        )
        return Served(name, version, index)

    def _loaded(self, name: str, version: int, done: asyncio.Task[Served]) -> None:
        del self._loading[name, version]
        if not done.cancelled():
            done.exception()  # marks it as seen, where everyone who asked has gone

    async def _first(self, name: str, version: int) -> Served:
        """Load the version in force; where it can't serve, the newest one that can."""
        try:
            served = await self.load(name, version)
        except (BrokenIndexError, WrongModelError) as error:
            log.error("index %s: version %d is refused: %s", name, version, error)
            self._refused[name] = (version, error)
            served = await self._last_good(name, version, error)
            log.error("index %s: version %s answers instead", name, served.version)
        if name not in self._served:
            self._served[name] = served
        return self._served[name]

    async def _last_good(self, name: str, refused: int, reason: ClipdexError) -> Served:
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
                self._refused[name] = (version, error)
            else:
                self.install(name, version, served.index)

        task = asyncio.create_task(swap())
        self._swaps.add(task)
        task.add_done_callback(self._swaps.discard)
