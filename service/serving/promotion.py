"""Promotion, rollback and deletion of adapters: the same steps for the server and a command line.

    choose   which version, for which index
    load     the index and the adapter over it, so that what can't answer is never promoted
    commit   move the adapter's `current`, and assign it to the index

`promote` and `roll_back` do all three at once and block. The server (`AdapterChanges`) does the
middle step on its threads, beside the adapter that answers, and swaps after the last one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models import Encoder
from service.errors import AdapterInUseError
from service.inference.engine import Engine
from service.serving.assignments import AdapterRef
from service.serving.core import ServingCore
from service.serving.current_adapters import CurrentAdapters
from service.serving.current_indexes import CurrentIndexes

if TYPE_CHECKING:
    from training.adapters.manifest import AdapterManifest
    from training.adapters.store import AdapterStore


@dataclass(frozen=True)
class Move:
    """A change of what answers, planned or done.

    version: None where there is no version to go back to: the indexes answer zero-shot again
    indexes: that the adapter answers, or answered, for
    """

    name: str
    version: int | None
    indexes: tuple[str, ...]

    @property
    def adapter(self) -> AdapterRef | None:
        """What answers after it; None: zero-shot."""
        return None if self.version is None else AdapterRef(self.name, self.version)


def choose_promotion(core: ServingCore, name: str, version: int | None, index: str | None) -> Move:
    """The version to promote, by default the newest, and its index, by default the one that it was
    made for.

    Raises: UnknownAdapterError.
    """
    chosen = core.adapters.versions(name)[-1] if version is None else version
    core.adapters.folder(name, chosen)
    target = index or core.assignments.made_for(name) or core.settings.index
    return Move(name, chosen, (target,))


def commit_promotion(core: ServingCore, move: Move, *, fingerprint: str, force: bool) -> None:
    """Make the version current, if the gate lets it pass, and assign it.

    Raises: GateError, UnknownAdapterError, AdapterError, FingerprintError.
    """
    assert move.version is not None
    core.adapters.promote(move.name, move.version, fingerprint=fingerprint, force=force)
    for index in move.indexes:
        core.assignments.assign(index, move.name)


def choose_rollback(core: ServingCore, name: str, version: int | None) -> Move:
    """The version to go back to, by default the one that was current before.

    Raises: UnknownAdapterError, also where there is no version and no index to go back for.
    """
    core.adapters.versions(name)
    indexes = tuple(core.assignments.indexes_of(name))
    chosen = earlier_version(core.adapters, name) if version is None else version
    if chosen is None and not indexes:
        core.adapters.rollback(name, fingerprint="")  # raises: its error says why there is none
    return Move(name, chosen, indexes)


def commit_rollback(core: ServingCore, move: Move, *, fingerprint: str) -> None:
    """Make the version current again, or let the indexes answer zero-shot.

    Raises: UnknownAdapterError, AdapterError, FingerprintError.
    """
    if move.version is None:
        for index in move.indexes:
            core.assignments.unassign(index)
    else:
        core.adapters.rollback(move.name, move.version, fingerprint=fingerprint)


def promote(
    core: ServingCore,
    name: str,
    version: int | None,
    encoder: Encoder,
    *,
    index: str | None,
    force: bool,
    load_model: Callable[[str], Encoder] | None = None,
) -> Move:
    """Let a version, by default the newest, answer for an index. Blocks.

    load_model: as in `ServingCore.classifier`
    Raises: UnknownAdapterError, AdapterError, FingerprintError, GateError; UnknownIndexError and
    whatever else keeps the index from answering.
    """
    move = choose_promotion(core, name, version, index)
    _check(core, move, encoder, load_model)
    commit_promotion(core, move, fingerprint=encoder.fingerprint, force=force)
    return move


def roll_back(
    core: ServingCore,
    name: str,
    version: int | None,
    encoder: Encoder,
    *,
    load_model: Callable[[str], Encoder] | None = None,
) -> Move:
    """Let the version that was current before answer again, or a given one. Blocks.

    Where none was, the adapter's indexes answer zero-shot again.
    Raises: UnknownAdapterError, AdapterError, FingerprintError, and whatever else keeps an index
    from answering.
    """
    move = choose_rollback(core, name, version)
    _check(core, move, encoder, load_model)
    commit_rollback(core, move, fingerprint=encoder.fingerprint)
    return move


def delete(core: ServingCore, name: str) -> None:
    """Remove an adapter with all its versions.

    Raises: UnknownAdapterError; AdapterInUseError while it is assigned to an index.
    """
    indexes = core.assignments.indexes_of(name)
    if indexes:
        raise AdapterInUseError(
            f"the adapter {name!r} answers for {', '.join(indexes)}; roll it back first",
            param="name",
        )
    core.adapters.delete(name)


def earlier_version(store: AdapterStore, name: str) -> int | None:
    """The version that was current before the current one, or None."""
    stack: list[int] = []
    for move in store.log(name):
        version = int(move["version"])
        if move["action"] == "rollback" and version in stack:
            del stack[len(stack) - stack[::-1].index(version) :]
        else:
            stack.append(version)
    current = store.current(name)
    return next((version for version in reversed(stack[:-1]) if version != current), None)


def _check(
    core: ServingCore, move: Move, encoder: Encoder, load_model: Callable[[str], Encoder] | None
) -> None:
    """Load what is going to answer. Raises: what keeps it from answering."""
    if move.adapter is not None:
        for index in move.indexes:
            core.classifier(index, move.adapter, encoder, load_model=load_model)


class AdapterChanges:
    """The same changes in a server, one at a time for each adapter. Lives on the event loop.

    Requests under way finish on what they began with.
    """

    def __init__(
        self, core: ServingCore, indexes: CurrentIndexes, adapters: CurrentAdapters, engine: Engine
    ) -> None:
        self._core = core
        self._indexes = indexes
        self._adapters = adapters
        self._engine = engine
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def promote(
        self, name: str, version: int | None, *, index: str | None, force: bool
    ) -> Move:
        """As the function `promote`."""
        core, fingerprint = self._core, self._engine.encoder.fingerprint
        async with self._locks[name]:
            move = await self._engine.run(lambda: choose_promotion(core, name, version, index))
            return await self._carry_out(
                move, lambda: commit_promotion(core, move, fingerprint=fingerprint, force=force)
            )

    async def roll_back(self, name: str, version: int | None) -> Move:
        """As the function `roll_back`."""
        core, fingerprint = self._core, self._engine.encoder.fingerprint
        async with self._locks[name]:
            move = await self._engine.run(lambda: choose_rollback(core, name, version))
            return await self._carry_out(
                move, lambda: commit_rollback(core, move, fingerprint=fingerprint)
            )

    async def delete(self, name: str) -> None:
        """As the function `delete`."""
        async with self._locks[name]:
            await self._engine.run(lambda: delete(self._core, name))

    async def _carry_out(self, move: Move, commit: Callable[[], None]) -> Move:
        ready = {}
        if move.adapter is not None:
            for index in move.indexes:
                loaded = await self._indexes.categories(index)
                ready[index] = await self._adapters.load(loaded, move.adapter)
        await self._engine.run(commit)
        for index in move.indexes:
            if index in ready:
                self._adapters.install(index, ready[index])
            else:
                self._adapters.forget(index)
        return move


# Adapters as clients see them, over HTTP and on the command line


def adapter_list(core: ServingCore) -> list[dict[str, Any]]:
    """All adapters, each by its current version or else its newest. Raises: AdapterError."""
    store = core.adapters
    found = []
    for name in store.names():
        info = store.info(name)
        indexes = core.assignments.indexes_of(name)
        found.append(_brief(name, info.current, info.versions, indexes, info.manifest))
    return found


def adapter_details(core: ServingCore, name: str, version: int | None = None) -> dict[str, Any]:
    """One version, by default the current one or else the newest; its files are verified.

    Raises: UnknownAdapterError, AdapterError.
    """
    from training.adapters.store import gate_failures

    store = core.adapters
    info = store.info(name)
    newest = info.versions[-1] if info.current is None else info.current
    chosen = newest if version is None else version
    adapter = store.load(name, chosen, fingerprint=store.manifest(name, chosen).fingerprint)
    manifest = adapter.manifest
    indexes = core.assignments.indexes_of(name)
    return {
        **_brief(name, info.current, info.versions, indexes, manifest),
        "made_for": core.assignments.made_for(name),
        "shown_version": chosen,
        "fingerprint": manifest.fingerprint,
        "gate_failures": list(gate_failures(adapter)),
        "prompts": {
            label: list(texts)
            for label, texts in zip(manifest.classes, manifest.prompts, strict=True)
        },
        "metrics": dict(adapter.metrics),
        "log": store.log(name),
    }


def _brief(
    name: str,
    current: int | None,
    versions: tuple[int, ...],
    indexes: list[str],
    manifest: AdapterManifest,
) -> dict[str, Any]:
    return {
        "name": name,
        "live": current,
        "versions": list(versions),
        "indexes": indexes,
        "kind": manifest.kind,
        "changes": manifest.changes,
        "model": manifest.base_model,
        "classes": list(manifest.classes),
        "created": manifest.created,
    }
