"""An adapter as clients see it, over HTTP and on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.adapters.bindings import Bindings

if TYPE_CHECKING:
    from training.adapter import AdapterManifest
    from training.adapter_store import AdapterStore


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
    from training.adapter_store import gate_failures

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
