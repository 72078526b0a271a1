"""Named, versioned adapters under one folder: ROOT/NAME/VERSION/ and ROOT/NAME/current -> VERSION.

A version never changes once published. `current` is what is live; it moves only by `promote`, which
asks the gate, and by `rollback`. Every move stands in ROOT/NAME/promotions.jsonl, forced ones
marked as such.
"""

from __future__ import annotations

import fcntl
import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from storage.durable import append_line, publish_folder, swap_link
from training.adapters.manifest import AdapterManifest, read_manifest
from training.errors import AdapterBusyError, AdapterError, GateError, UnknownAdapterError

if TYPE_CHECKING:
    from training.adapters.adapter import Adapter
    from training.adapters.tuned_model import TunedModel

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CURRENT = "current"
_STAGED = ".staged-"
_LOG = "promotions.jsonl"
_PAUSE = 0.05  # seconds


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
        self.root = Path(root)
        self._patience = patience

    def names(self) -> tuple[str, ...]:
        """All adapters with at least one version, in alphabetical order."""
        if not self.root.is_dir():
            return ()
        named = sorted(entry.name for entry in self.root.iterdir() if _NAME.fullmatch(entry.name))
        return tuple(name for name in named if self._versions(name))

    def info(self, name: str) -> AdapterInfo:
        """What is known of an adapter. Raises: UnknownAdapterError, AdapterError."""
        versions, current = self.versions(name), self.current(name)
        shown = versions[-1] if current is None else current
        return AdapterInfo(name, current, versions, read_manifest(self._version(name, shown)))

    def versions(self, name: str) -> tuple[int, ...]:
        """All versions, oldest first. Raises: UnknownAdapterError."""
        found = self._versions(name)
        if not found:
            known = ", ".join(self.names()[:20]) or "none yet"
            raise UnknownAdapterError(f"no adapter is called {name!r}; there are: {known}")
        return found

    def current(self, name: str) -> int | None:
        """The live version, None before the first promotion."""
        link = self._folder(name) / _CURRENT
        if not link.is_symlink():
            return None
        target = link.readlink().name
        if not target.isdecimal():
            raise AdapterError(f"{link} leads to {target!r}, which is no version")
        return int(target)

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
        return self._version(name, version)

    def manifest(self, name: str, version: int) -> AdapterManifest:
        """What a version says of itself. Raises: UnknownAdapterError, AdapterError."""
        return read_manifest(self._version(name, version))

    def publish(self, name: str, write: Callable[[Path], None]) -> int:
        """Add a version, not live yet; `write` fills an empty folder (`export.export` does).

        Returns its number. Raises: UnknownAdapterError for an impossible name.
        """
        with self._writing(name):
            folder = self._folder(name)
            folder.mkdir(exist_ok=True)
            for left in folder.glob(f"{_STAGED}*"):  # by a writer that died
                shutil.rmtree(left)
            staged = folder / f"{_STAGED}{secrets.token_hex(4)}"
            staged.mkdir()
            write(staged)
            version = max(self._versions(name), default=0) + 1
            publish_folder(staged, folder / str(version))
            return version

    def load(
        self, name: str, version: int | None = None, *, fingerprint: str
    ) -> Adapter | TunedModel:
        """A verified version; None: the live one. `.manifest.changes` tells which kind it is.

        Raises: UnknownAdapterError, AdapterError, FingerprintError.
        """
        chosen = self.live(name) if version is None else version
        return open_adapter(self._version(name, chosen), fingerprint=fingerprint)

    def promote(self, name: str, version: int, *, fingerprint: str, force: bool = False) -> None:
        """Make a version live, if it is whole, for this model, and through the gate.

        force: go past the gate's verdict (never past damage or a foreign fingerprint); it is
        logged.

        Raises: GateError naming the tests that failed; UnknownAdapterError, AdapterError,
            FingerprintError.
        """
        with self._writing(name):
            adapter = open_adapter(self._version(name, version), fingerprint=fingerprint)
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
        with self._writing(name):
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
            open_adapter(self._version(name, version), fingerprint=fingerprint)
            self._move(name, version, action="rollback", forced=[])
            return version

    def delete(self, name: str) -> None:
        """Remove an adapter with all its versions.

        Raises: UnknownAdapterError, AdapterBusyError.
        """
        with self._writing(name):
            self.versions(name)
            # Renamed before it is removed, so that no half-removed folder looks like an adapter.
            trash = self.root / f".trash-{name}-{secrets.token_hex(4)}"
            self._folder(name).rename(trash)
            shutil.rmtree(trash)

    def log(self, name: str) -> list[dict[str, Any]]:
        """Every promotion and rollback, oldest first."""
        path = self._folder(name) / _LOG
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
        swap_link(self._folder(name) / _CURRENT, str(version))
        move = {
            "action": action,
            "version": version,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "forced_past": forced,
        }
        append_line(self._folder(name) / _LOG, json.dumps(move))

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Keep other writers of this adapter out; one that is at it is waited for.

        Raises: AdapterBusyError if that takes too long.
        """
        folder = self._folder(name)
        (self.root / ".locks").mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._patience
        with (self.root / ".locks" / folder.name).open("wb") as lock:
            while not _locked(lock):
                if time.monotonic() >= deadline:
                    raise AdapterBusyError(
                        f"the adapter {name!r} is being changed by someone else; try again",
                        param="name",
                    )
                time.sleep(_PAUSE)
            yield

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UnknownAdapterError(
                f"{name!r} can't name an adapter; use 1 to 64 letters, digits, '-', '_' and '.'",
                param="name",
            )
        return self.root / name

    def _versions(self, name: str) -> tuple[int, ...]:
        folder = self._folder(name)
        if not folder.is_dir():
            return ()
        return tuple(sorted(int(e.name) for e in folder.iterdir() if e.name.isdecimal()))

    def _version(self, name: str, version: int) -> Path:
        known = self.versions(name)
        if version not in known:
            kept = ", ".join(map(str, known))
            raise UnknownAdapterError(
                f"the adapter {name!r} has no version {version}; there are: {kept}"
            )
        return self._folder(name) / str(version)


def _locked(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
        return ("the gate was never asked: there was no held-out split",)
    return tuple(str(failure) for failure in gate["failures"])
