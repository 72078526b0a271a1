"""Named, versioned adapters under one folder: ROOT/NAME/VERSION/ and ROOT/NAME/current -> VERSION.

A version never changes once published. `current` is what is live; it moves only by `promote`, which
asks the gate, and by `rollback`. Every move stands in ROOT/NAME/promotions.jsonl, forced ones
marked as such.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.durable import append_line
from storage.versions import VersionedFolder, VersionErrors
from training.adapters.manifest import AdapterManifest, read_manifest
from training.errors import AdapterBusyError, AdapterError, GateError, UnknownAdapterError

if TYPE_CHECKING:
    from training.adapters.adapter import Adapter
    from training.adapters.tuned_model import TunedModel

_LOG = "promotions.jsonl"

_ERRORS = VersionErrors(
    name=partial(UnknownAdapterError, param="name"),
    unknown=UnknownAdapterError,
    version=UnknownAdapterError,
    busy=partial(AdapterBusyError, param="name"),
    broken=AdapterError,
)


@dataclass(frozen=True)
class AdapterInfo:
    """current: the live version, None before the first promotion; manifest: of the live version, or
    of the newest.
    """

    name: str
    current: int | None
    versions: tuple[int, ...]
    manifest: AdapterManifest


class AdapterStore:
    """The adapters under `root`, which is made when the first one is published.

    patience: seconds that a writer waits for another one of the same adapter
    """

    def __init__(self, root: str | Path, *, patience: float = 30.0) -> None:
        self._folder = VersionedFolder(root, kind="adapter", errors=_ERRORS, patience=patience)
        self.root = self._folder.root

    def names(self) -> tuple[str, ...]:
        """All adapters with at least one version, in alphabetical order."""
        return self._folder.names()

    def info(self, name: str) -> AdapterInfo:
        """What is known of an adapter. Raises: UnknownAdapterError, AdapterError."""
        versions, current = self.versions(name), self.current(name)
        shown = versions[-1] if current is None else current
        return AdapterInfo(
            name, current, versions, read_manifest(self._folder.version_folder(name, shown))
        )

    def versions(self, name: str) -> tuple[int, ...]:
        """All versions, oldest first. Raises: UnknownAdapterError."""
        return self._folder.versions(name)

    def current(self, name: str) -> int | None:
        """The live version, None before the first promotion."""
        return self._folder.current(name)

    def live(self, name: str) -> int:
        """The live version. Raises: UnknownAdapterError, also before the first promotion."""
        version = self.current(name)
        if version is None:
            self.versions(name)  # tells an unknown name from one that isn't live
            raise UnknownAdapterError(
                f"the adapter {name!r} has not been promoted; name a version, or promote one"
            )
        return version

    def folder(self, name: str, version: int) -> Path:
        """Where a version lies. Raises: UnknownAdapterError."""
        return self._folder.version_folder(name, version)

    def manifest(self, name: str, version: int) -> AdapterManifest:
        """What a version says of itself. Raises: UnknownAdapterError, AdapterError."""
        return read_manifest(self._folder.version_folder(name, version))

    def publish(self, name: str, write: Callable[[Path], None]) -> int:
        """Add a version, not live yet; `write` fills an empty folder (`export.export` does).

        Returns its number. Raises: UnknownAdapterError for an impossible name.
        """
        with self._folder.writing(name):
            return self._folder.publish(name, write)

    def load(
        self, name: str, version: int | None = None, *, fingerprint: str
    ) -> Adapter | TunedModel:
        """A verified version; None: the live one. `.manifest.changes` tells which kind it is.

        Raises: UnknownAdapterError, AdapterError, FingerprintError.
        """
        chosen = self.live(name) if version is None else version
        return open_adapter(self._folder.version_folder(name, chosen), fingerprint=fingerprint)

    def promote(self, name: str, version: int, *, fingerprint: str, force: bool = False) -> None:
        """Make a version live, if it is whole, for this model, and through the gate.

        force: go past the gate's verdict (never past damage or a foreign fingerprint); it is
        logged.

        Raises: GateError naming the tests that failed; UnknownAdapterError, AdapterError,
            FingerprintError.
        """
        with self._folder.writing(name):
            adapter = open_adapter(
                self._folder.version_folder(name, version), fingerprint=fingerprint
            )
            failures = gate_failures(adapter)
            if failures and not force:
                raise GateError(
                    f"{name} version {version} may not go live: {'; '.join(failures)}; improve it, "
                    "or force it"
                )
            self._move(name, version, action="promote", forced=list(failures))

    def rollback(self, name: str, version: int | None = None, *, fingerprint: str) -> int:
        """Make an earlier live version live again: the last one before the current, or a given one.

        Returns its number. Raises: UnknownAdapterError where there is none; AdapterError,
        FingerprintError.
        """
        with self._folder.writing(name):
            current = self.current(name)
            once_live = [move["version"] for move in self.log(name)]
            earlier = [v for v in self._live_stack(name)[:-1] if v != current]
            if version is None:
                if not earlier:
                    raise UnknownAdapterError(f"{name!r} has no earlier live version to go back to")
                version = int(earlier[-1])
            elif version not in once_live:
                raise UnknownAdapterError(
                    f"version {version} of {name!r} was never live; promote it instead"
                )
            open_adapter(self._folder.version_folder(name, version), fingerprint=fingerprint)
            self._move(name, version, action="rollback", forced=[])
            return version

    def delete(self, name: str) -> None:
        """Remove an adapter with all its versions.

        Raises: UnknownAdapterError, AdapterBusyError.
        """
        with self._folder.writing(name):
            self._folder.delete(name)

    def log(self, name: str) -> list[dict[str, Any]]:
        """Every promotion and rollback, oldest first."""
        path = self._folder.folder(name) / _LOG
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def _live_stack(self, name: str) -> list[int]:
        """Versions as they went live; a rollback takes back what came after its target."""
        stack: list[int] = []
        for move in self.log(name):
            version = int(move["version"])
            if move["action"] == "rollback" and version in stack:
                del stack[len(stack) - stack[::-1].index(version) :]
            else:
                stack.append(version)
        return stack

    def _move(self, name: str, version: int, *, action: str, forced: list[str]) -> None:
        self._folder.make_current(name, version)
        move = {
            "action": action,
            "version": version,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "forced_past": forced,
        }
        append_line(self._folder.folder(name) / _LOG, json.dumps(move))


def open_adapter(folder: Path, *, fingerprint: str) -> Adapter | TunedModel:
    """Read and verify an adapter of either kind. This alone imports torch.

    Raises: AdapterError, FingerprintError.
    """
    from training.adapters import tuned_model

    return tuned_model.open_adapter(folder, fingerprint=fingerprint)


def gate_failures(adapter: Adapter | TunedModel) -> tuple[str, ...]:
    """What the gate found against an adapter; that it was never asked counts as a failure."""
    gate = adapter.metrics.get("gate")
    if not isinstance(gate, dict) or "failures" not in gate:
        return (
            "the gate was never asked: nothing was held out, and with one image a class there are "
            "no folds",
        )
    return tuple(str(failure) for failure in gate["failures"])
