"""Promotion and rollback while requests are answered.

The new answer is made ready beside the old one; only then does the alias on disk move, and with it
what the next request gets. Requests under way finish on what they began with.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.errors import AdapterInUseError
from service.inference.engine import Engine
from service.serving.adapters import LiveAdapters
from service.serving.assignments import AdapterRef, Bindings
from service.serving.catalog import Catalog
from service.settings import Settings

if TYPE_CHECKING:
    from training.adapters.adapter import AdapterManifest
    from training.adapters.store import AdapterStore


@dataclass(frozen=True)
class Moved:
    """What an alias points to now.

    version: None where there was nothing to go back to: the indexes answer zero-shot again
    indexes: that the adapter answers, or answered, for
    """

    name: str
    version: int | None
    indexes: tuple[str, ...]


class AdapterChanges:
    """Changes of what answers, one at a time for each adapter. Lives on the event loop."""

    def __init__(
        self, settings: Settings, live: LiveAdapters, catalog: Catalog, engine: Engine
    ) -> None:
        self._settings = settings
        self._live = live
        self._catalog = catalog
        self._engine = engine
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def promote(
        self, name: str, version: int | None, *, index: str | None, force: bool
    ) -> Moved:
        """Let a version, by default the newest, answer for an index.

        index: by default the one that the adapter was made for
        Raises: UnknownAdapterError, AdapterError, FingerprintError, GateError; UnknownIndexError
        and whatever else keeps the index from answering.
        """
        store = await self._live.store()
        versions = await self._engine.run(lambda: store.versions(name))
        chosen = versions[-1] if version is None else version
        bindings = self._live.bindings
        target = index or bindings.aim(name) or self._settings.index
        async with self._locks[name]:
            served = await self._catalog.categories(target)
            answering = await self._live.load(served, AdapterRef(name, chosen))
            fingerprint = self._engine.encoder.fingerprint

            def move() -> None:
                store.promote(name, chosen, fingerprint=fingerprint, force=force)
                bindings.bind(target, name)

            await self._engine.run(move)
            self._live.install(target, answering)
        return Moved(name, chosen, (target,))

    async def roll_back(self, name: str, version: int | None) -> Moved:
        """Let the version that was live before answer again, or a given one that was live once.

        Where none was, the adapter's indexes answer zero-shot again.
        Raises: UnknownAdapterError, AdapterError, FingerprintError.
        """
        store, bindings = await self._live.store(), self._live.bindings
        await self._engine.run(lambda: store.versions(name))
        async with self._locks[name]:
            indexes = tuple(bindings.indexes(name))
            fingerprint = self._engine.encoder.fingerprint
            earlier = await self._engine.run(lambda: earlier_live(store, name))
            if version is None and earlier is None and indexes:
                for index in indexes:
                    served = await self._catalog.categories(index)
                    await self._engine.run(lambda at=index: bindings.unbind(at))  # type: ignore[misc]
                    self._live.install(index, self._live.plain(served))
                return Moved(name, None, indexes)
            went = await self._engine.run(
                lambda: store.rollback(name, version, fingerprint=fingerprint)
            )
            for index in indexes:
                served = await self._catalog.categories(index)
                ref = AdapterRef(name, went)
                self._live.install(index, await self._live.load(served, ref))
        return Moved(name, went, indexes)

    async def delete(self, name: str) -> None:
        """Remove an adapter with all its versions.

        Raises: UnknownAdapterError; AdapterInUseError while it answers for an index.
        """
        store, bindings = await self._live.store(), self._live.bindings
        async with self._locks[name]:
            indexes = bindings.indexes(name)
            if indexes:
                raise AdapterInUseError(
                    f"the adapter {name!r} answers for {', '.join(indexes)}; roll it back first",
                    param="name",
                )
            await self._engine.run(lambda: store.delete(name))


def earlier_live(store: AdapterStore, name: str) -> int | None:
    """The version that was live before the live one, or None."""
    stack: list[int] = []
    for move in store.log(name):
        version = int(move["version"])
        if move["action"] == "rollback" and version in stack:
            del stack[len(stack) - stack[::-1].index(version) :]
        else:
            stack.append(version)
    current = store.current(name)
    return next((version for version in reversed(stack[:-1]) if version != current), None)


# ---- An adapter as clients see it, over HTTP and on the command line.


def adapter_list(store: AdapterStore, bindings: Bindings) -> list[dict[str, Any]]:
    """All adapters, each by its live version or else its newest. Raises: AdapterError."""
    found = []
    for name in store.names():
        info = store.info(name)
        indexes = bindings.indexes(name)
        found.append(_brief(name, info.current, info.versions, indexes, info.manifest))
    return found


def adapter_details(
    store: AdapterStore, bindings: Bindings, name: str, version: int | None = None
) -> dict[str, Any]:
    """One version, by default the live one or else the newest; its files are verified.

    Raises: UnknownAdapterError, AdapterError.
    """
    from training.adapters.store import gate_failures

    info = store.info(name)
    newest = info.versions[-1] if info.current is None else info.current
    chosen = newest if version is None else version
    adapter = store.load(name, chosen, fingerprint=store.manifest(name, chosen).fingerprint)
    manifest = adapter.manifest
    return {
        **_brief(name, info.current, info.versions, bindings.indexes(name), manifest),
        "made_for": bindings.aim(name),
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
    live: int | None,
    versions: tuple[int, ...],
    indexes: list[str],
    manifest: AdapterManifest,
) -> dict[str, Any]:
    return {
        "name": name,
        "live": live,
        "versions": list(versions),
        "indexes": indexes,
        "kind": manifest.kind,
        "changes": manifest.changes,
        "model": manifest.base_model,
        "classes": list(manifest.classes),
        "created": manifest.created,
    }
