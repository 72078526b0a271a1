"""Which adapter answers for which index, now: loaded beside, swapped in one step.

A request holds the `Answering` that it began with. What the command line or another server
promotes is noticed at the next request, loaded beside, and takes over when it is whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from indexer import CategoryIndex
from models import Encoder, load_encoder
from models.errors import ClipdexError
from service.errors import UnavailableError
from service.http.metrics import Metrics
from service.inference.engine import Engine
from service.serving.answering import Answering, Slot, embedded_anew, tuned_head
from service.serving.assignments import NONE, AdapterRef, Bindings, parse_asked
from service.serving.catalog import Catalog, Served
from service.settings import Settings

if TYPE_CHECKING:
    from training.adapters.store import AdapterStore
    from training.adapters.tuned_model import TunedModel

log = logging.getLogger("clipdex")
_LOOK_AGAIN = 0.1  # seconds, as for indexes
_RESIDENT = 8  # pairs of index and adapter in memory
_ENGINES = 2  # further models in memory, of adapters that bring their own
T = TypeVar("T")
Key = tuple[str | None, object, AdapterRef]


class LiveAdapters:
    """The adapters that answer. Lives on the event loop; loads on the engine's threads."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        engine: Engine,
        metrics: Metrics,
        bindings: Bindings,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._slot = Slot(engine)
        self._metrics = metrics
        self.bindings = bindings
        self._look_again: dict[str, float] = {}
        self._wanted: dict[str, AdapterRef | None] = {}
        self._in_force: dict[str, Answering] = {}
        self._ready: OrderedDict[Key, Answering] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[Answering]] = {}
        self._refused: dict[Key, ClipdexError] = {}
        self._engines: OrderedDict[AdapterRef, Slot] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop alone would lose them

    def plain(self, served: Served[CategoryIndex]) -> Answering:
        """The answer without an adapter."""
        return Answering(self._slot, served, served.index)

    async def get(self, index: str, asked: str | None) -> Answering:
        """What answers for an index.

        asked: NAME, NAME@VERSION, "none", or None for the index's own adapter
        Raises: UnknownIndexError, BrokenIndexError, WrongModelError, IndexKindError, NotReadyError;
        where an adapter is named: ParameterError, UnknownAdapterError, AdapterError,
        FingerprintError.
        """
        served = await self._catalog.categories(index)
        if asked == NONE:
            return self.plain(served)
        if asked is not None:
            return await self.load(served, await self._named(asked))
        return await self._default(index, served)

    def in_force(self, index: str) -> AdapterRef | None:
        """The adapter that answers for an index by default; None before its first request."""
        answering = self._in_force.get(index)
        return None if answering is None else answering.adapter

    def problem(self, index: str) -> ClipdexError | None:
        """Why the index's own adapter doesn't answer, if it doesn't."""
        wanted, served = self._wanted.get(index), self._catalog.resident(index)
        if wanted is None or served is None:
            return None
        return self._refused.get((index, served.mark, wanted))

    async def load(self, served: Served[CategoryIndex], ref: AdapterRef) -> Answering:
        """Make ready, without putting in force; one loading serves all who ask.

        Raises: UnknownAdapterError, AdapterError, FingerprintError; ModelBrokenError.
        """
        key = (served.name, served.mark, ref)
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._load(served, ref))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        # Whoever began the loading may be cancelled by its client; the others still want it.
        return await asyncio.shield(task)

    def install(self, index: str, answering: Answering) -> None:
        """Answer with this from the next request on."""
        self._wanted[index] = answering.adapter
        self._look_again[index] = time.monotonic() + _LOOK_AGAIN
        if answering.adapter is None:
            self._in_force.pop(index, None)
        else:
            self._in_force[index] = answering

    def forget(self, index: str) -> None:
        """Of a deleted index; one that is made anew under its name was taught nothing."""
        for known in (self._wanted, self._look_again, self._in_force):
            known.pop(index, None)

    def stop(self) -> None:
        """End the further models."""
        for slot in self._engines.values():
            slot.engine.stop()

    async def store(self) -> AdapterStore:
        """The adapters on disk. Imports torch when it is first asked for."""

        def make() -> AdapterStore:
            from training.adapters.store import AdapterStore

            return AdapterStore(self._settings.adapters)

        return await self._slot.engine.run(make)

    async def _named(self, asked: str) -> AdapterRef:
        name, version = parse_asked(asked)
        if version is None:
            version = self.bindings.live(name)
        if version is None:
            store = await self.store()
            version = await self._run(lambda: store.live(name))  # says why there is none
        return AdapterRef(name, version)

    async def _default(self, index: str, served: Served[CategoryIndex]) -> Answering:
        ref = self._own(index)
        if ref is None:
            self._in_force.pop(index, None)
            return self.plain(served)
        before = self._in_force.get(index)
        key = (served.name, served.mark, ref)
        if before is not None and before.adapter == ref and before.served.mark == served.mark:
            return before
        if key in self._ready:
            self._in_force[index] = self._ready[key]
        elif key in self._refused:
            if before is not None and before.served.mark != served.mark:
                self._in_force.pop(index)  # rather none than one of an index that has changed
        elif before is not None:
            self._begin(index, served, ref)
        else:
            await self._try(index, served, ref)
        return self._in_force.get(index) or self.plain(served)

    def _own(self, index: str) -> AdapterRef | None:
        """What the disk says, looked up a few times a second."""
        now = time.monotonic()
        if now >= self._look_again.get(index, 0):
            name = self.bindings.active(index)
            version = None if name is None else self.bindings.live(name)
            known = name is not None and version is not None
            self._wanted[index] = AdapterRef(name, version) if known else None  # type: ignore[arg-type]
            self._look_again[index] = now + _LOOK_AGAIN
        return self._wanted[index]

    def _begin(self, index: str, served: Served[CategoryIndex], ref: AdapterRef) -> None:
        """Load beside what is in force."""
        if (served.name, served.mark, ref) not in self._loading:
            task = asyncio.create_task(self._try(index, served, ref))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _try(self, index: str, served: Served[CategoryIndex], ref: AdapterRef) -> None:
        """Load and put in force; an adapter that can't be is refused, and the log says why."""
        try:
            answering = await self.load(served, ref)
        except UnavailableError as error:
            log.warning("index %s: the adapter %s has to wait: %s", index, ref, error)
        except ClipdexError as error:
            log.error("index %s: the adapter %s is refused: %s", index, ref, error)
            self._refused[served.name, served.mark, ref] = error
        else:
            if self._wanted.get(index) == ref:
                self._in_force[index] = answering

    async def _load(self, served: Served[CategoryIndex], ref: AdapterRef) -> Answering:
        store, engine = await self.store(), self._slot.engine
        fingerprint = engine.encoder.fingerprint
        loaded = await self._run(lambda: store.load(ref.name, ref.version, fingerprint=fingerprint))
        from training.adapters.adapter import Adapter

        if not isinstance(loaded, Adapter):
            return await self._load_model(served, ref, loaded)
        encoder = engine.shared_encoder(cached=False)
        head = await self._run(
            lambda: tuned_head(served.index, loaded, encoder, self._catalog.prompts)
        )
        return Answering(self._slot, served, head.index, ref, head)

    async def _load_model(
        self, served: Served[CategoryIndex], ref: AdapterRef, tuned: TunedModel
    ) -> Answering:
        """The adapter's own model, and the index embedded anew with it."""
        slot = await self._slot_of(ref, tuned.model_id)
        encoder = slot.engine.shared_encoder(cached=False)

        def embed() -> CategoryIndex:
            return embedded_anew(served.index, tuned.manifest, encoder, self._catalog.prompts)

        with slot.used():
            return Answering(slot, served, await self._run(embed), ref)

    async def _slot_of(self, ref: AdapterRef, model_id: str) -> Slot:
        slot = self._engines.get(ref)
        if slot is None:
            chosen = self._settings

            def load() -> Encoder:
                return load_encoder(
                    model_id,
                    backend=chosen.backend,
                    device=chosen.device,
                    precision=chosen.precision,
                    cache_dir=chosen.cache,
                )

            slot = Slot(Engine(chosen, load, self._metrics))
            slot.engine.start()
            self._engines[ref] = slot
            self._close_old(ref)
        await self._run(slot.engine.worker.wait_until_settled)
        if slot.engine.worker.failure is not None:
            self._engines.pop(ref, None)
            slot.close()
            raise slot.engine.worker.failure
        return slot

    def _close_old(self, wanted: AdapterRef) -> None:
        """End the model unused for longest of those that nothing in force needs."""
        needed = {answering.adapter for answering in self._in_force.values()} | {wanted}
        for ref in [ref for ref in self._engines if ref not in needed]:
            if len(self._engines) <= _ENGINES:
                return
            slot = self._engines.pop(ref)
            for key in [key for key in self._ready if key[2] == ref]:
                del self._ready[key]
            slot.close()

    def _loaded(self, key: Key, done: asyncio.Task[Answering]) -> None:
        del self._loading[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._ready[key] = done.result()
        self._refused.pop(key, None)
        while len(self._ready) > _RESIDENT:
            self._ready.popitem(last=False)

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._slot.engine.run(work)
