"""What answers a server's requests for an index, adapter included: loaded beside, then swapped.

A request keeps the `Current` that it began with. What the command line or another server
promotes is noticed at the next request, loaded on a thread, and swapped in when it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from indexer import CategoryIndex
from models import Encoder
from models.errors import ClipdexError
from service.errors import UnavailableError
from service.inference.engine import Engine
from service.inference.metrics import Metrics
from service.serving.assignments import NONE, AdapterRef
from service.serving.classifier import Classifier
from service.serving.core import LoadedIndex, ServingCore
from service.serving.current_indexes import CurrentIndexes

log = logging.getLogger("clipdex")
_LOOK_AGAIN = 0.1  # seconds, as for indexes
_KEPT = 8  # pairs of index and adapter in memory
_ENGINES = 2  # further models in memory, of adapters that bring their own
Key = tuple[str | None, object, AdapterRef]


@dataclass(eq=False)
class SharedEngine:
    """An engine and how many requests are using it."""

    engine: Engine
    users: int = 0
    closing: bool = False

    @contextlib.contextmanager
    def used(self) -> Iterator[Engine]:
        """Keep the engine running until the block ends."""
        self.users += 1
        try:
            yield self.engine
        finally:
            self.users -= 1
            self._end_if_idle()

    def close(self) -> None:
        """End the engine as soon as nobody uses it."""
        self.closing = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self.closing and not self.users:
            self.engine.stop()


@dataclass(frozen=True, eq=False)
class Current:
    """A classifier and the engine that makes its image vectors.

    mark: of the index's version
    """

    shared: SharedEngine
    classifier: Classifier
    mark: object = None

    @property
    def adapter(self) -> AdapterRef | None:
        """The adapter that takes part."""
        return self.classifier.adapter


class CurrentAdapters:
    """What answers for each index. Lives on the event loop; loads on the engine's threads."""

    def __init__(
        self, core: ServingCore, indexes: CurrentIndexes, engine: Engine, metrics: Metrics
    ) -> None:
        self._core = core
        self._indexes = indexes
        self._main = SharedEngine(engine)
        self._metrics = metrics
        self._look_again: dict[str, float] = {}
        self._assigned: dict[str, AdapterRef | None] = {}
        self._current: dict[str, Current] = {}
        self._ready: OrderedDict[Key, Current] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[Current]] = {}
        self._refused: dict[Key, ClipdexError] = {}
        self._engines: OrderedDict[AdapterRef, SharedEngine] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop keeps no reference to them

    def plain(self, loaded: LoadedIndex[CategoryIndex]) -> Current:
        """The answer without an adapter. Raises: NotReadyError."""
        encoder = self._main.engine.shared_encoder(cached=False)
        plain = Classifier.zero_shot(loaded.name, loaded.version, loaded.index, encoder)
        return Current(self._main, plain, loaded.mark)

    async def get(self, index: str, asked: str | None) -> Current:
        """What answers for an index.

        asked: NAME, NAME@VERSION, "none", or None for the index's own adapter
        Raises: UnknownIndexError, BrokenIndexError, WrongModelError, IndexKindError, NotReadyError;
        where an adapter takes part: ParameterError, UnknownAdapterError, AdapterError,
        FingerprintError. An index's own adapter that can't be loaded is an error, too, unless the
        one before it is still in memory: zero-shot never answers in its place.
        """
        loaded = await self._indexes.categories(index)
        if asked == NONE:
            return self.plain(loaded)
        if asked is not None:
            ref = await self._engine.run(lambda: self._core.adapter_for(index, asked))
            return self.plain(loaded) if ref is None else await self.load(loaded, ref)
        own = self._own(index)
        if own is None:
            self._current.pop(index, None)
            return self.plain(loaded)
        return await self._default(index, loaded, own)

    def engine_for(self, index: str, asked: str | None) -> Engine:
        """The engine that is going to embed the images, as far as that is known already."""
        if asked is None:
            current = self._current.get(index)
            return self._engine if current is None else current.shared.engine
        for ref, shared in self._engines.items():
            if asked in (str(ref), ref.name):
                return shared.engine
        return self._engine

    def current(self, index: str) -> AdapterRef | None:
        """The adapter that answers for an index by default; None before its first request."""
        current = self._current.get(index)
        return None if current is None else current.adapter

    def problem(self, index: str) -> ClipdexError | None:
        """Why the index's own adapter doesn't answer, if it doesn't."""
        assigned, loaded = self._assigned.get(index), self._indexes.in_memory(index)
        if assigned is None or loaded is None:
            return None
        return self._refused.get((index, loaded.mark, assigned))

    async def load(self, loaded: LoadedIndex[CategoryIndex], ref: AdapterRef) -> Current:
        """Load without making it current; one loading serves all who ask.

        Raises: UnknownAdapterError, AdapterError, FingerprintError; ModelBrokenError.
        """
        key = (loaded.name, loaded.mark, ref)
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._load(loaded, ref))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        # Whoever began the loading may be cancelled by its client; the others still want it.
        return await asyncio.shield(task)

    def install(self, index: str, current: Current) -> None:
        """Answer with this from the next request on."""
        self._assigned[index] = current.adapter
        self._look_again[index] = time.monotonic() + _LOOK_AGAIN
        if current.adapter is None:
            self._current.pop(index, None)
        else:
            self._current[index] = current

    def forget(self, index: str) -> None:
        """Forget a deleted index; one that is made anew under its name has no adapter."""
        for known in (self._assigned, self._look_again, self._current):
            known.pop(index, None)

    def stop(self) -> None:
        """End the further models."""
        for shared in self._engines.values():
            shared.engine.stop()

    @property
    def _engine(self) -> Engine:
        return self._main.engine

    async def _default(
        self, index: str, loaded: LoadedIndex[CategoryIndex], ref: AdapterRef
    ) -> Current:
        before = self._current.get(index)
        if before is not None and (before.adapter, before.mark) == (ref, loaded.mark):
            return before
        key = (loaded.name, loaded.mark, ref)
        if key in self._ready:
            self._current[index] = self._ready[key]
            return self._ready[key]
        if before is not None and (before.mark == loaded.mark or key not in self._refused):
            if key not in self._refused:
                self._load_beside(index, loaded, ref)
            return before
        if key in self._refused:
            self._current.pop(index, None)  # it belongs to a version that has been replaced
            raise self._refused[key]
        return await self._try(index, loaded, ref)

    def _own(self, index: str) -> AdapterRef | None:
        """The assignment on disk, read a few times a second."""
        now = time.monotonic()
        if now >= self._look_again.get(index, 0):
            self._assigned[index] = self._core.assignments.current(index)
            self._look_again[index] = now + _LOOK_AGAIN
        return self._assigned[index]

    def _load_beside(self, index: str, loaded: LoadedIndex[CategoryIndex], ref: AdapterRef) -> None:
        """Load while the one before answers."""
        if (loaded.name, loaded.mark, ref) not in self._loading:

            async def load() -> None:
                with contextlib.suppress(ClipdexError):  # _try has logged it
                    await self._try(index, loaded, ref)

            task = asyncio.create_task(load())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _try(
        self, index: str, loaded: LoadedIndex[CategoryIndex], ref: AdapterRef
    ) -> Current:
        """Load and make current. Raises: what made it impossible, which is remembered."""
        try:
            current = await self.load(loaded, ref)
        except UnavailableError as error:
            log.warning("index %s: the adapter %s has to wait: %s", index, ref, error)
            raise
        except ClipdexError as error:
            log.error("index %s: the adapter %s is refused: %s", index, ref, error)
            self._refused[loaded.name, loaded.mark, ref] = error
            raise
        if self._assigned.get(index) == ref:
            self._current[index] = current
        return current

    async def _load(self, loaded: LoadedIndex[CategoryIndex], ref: AdapterRef) -> Current:
        core, plain, shared = self._core, self.plain(loaded).classifier, self._main
        fingerprint = self._engine.encoder.fingerprint
        adapter = await self._engine.run(lambda: core.load_adapter(ref, fingerprint))
        if adapter.manifest.changes == "weights":
            shared = await self._engine_of(ref, adapter.model_id)  # type: ignore[union-attr]
        encoder = shared.engine.shared_encoder(cached=False)
        with shared.used():
            classifier = await self._engine.run(
                lambda: Classifier.adapted(plain, ref, adapter, encoder, core.prompts)
            )
        return Current(shared, classifier, loaded.mark)

    async def _engine_of(self, ref: AdapterRef, model_id: str) -> SharedEngine:
        """The engine of an adapter's own model."""
        shared = self._engines.get(ref)
        if shared is None:

            def load() -> Encoder:
                return self._core.load_model(model_id)

            shared = SharedEngine(Engine(self._core.settings, load, self._metrics))
            shared.engine.start()
            self._engines[ref] = shared
            self._close_old(ref)
        await self._engine.run(shared.engine.worker.wait_until_settled)
        if shared.engine.worker.failure is not None:
            self._engines.pop(ref, None)
            shared.close()
            raise shared.engine.worker.failure
        return shared

    def _close_old(self, wanted: AdapterRef) -> None:
        """End the model unused for longest of those that no current adapter needs."""
        needed = {current.adapter for current in self._current.values()} | {wanted}
        for ref in [ref for ref in self._engines if ref not in needed]:
            if len(self._engines) <= _ENGINES:
                return
            shared = self._engines.pop(ref)
            for key in [key for key in self._ready if key[2] == ref]:
                del self._ready[key]
            shared.close()

    def _loaded(self, key: Key, done: asyncio.Task[Current]) -> None:
        del self._loading[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._ready[key] = done.result()
        self._refused.pop(key, None)
        while len(self._ready) > _KEPT:
            self._ready.popitem(last=False)
