"""Named, versioned folders: ROOT/NAME/VERSION/ and the link ROOT/NAME/current -> VERSION.

A version never changes once published. Readers load it whole, so what is deleted or replaced later
does not disturb them. Writers of one name exclude each other by a file lock, which the operating
system drops when its process dies; what a dead writer left is removed by the next one.
"""

from __future__ import annotations

import difflib
import fcntl
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from storage.durable import publish_folder, swap_link, sync_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CURRENT = "current"
_STAGED = ".staged-"
_TRASH = ".trash-"
_LOCKS = ".locks"
_PAUSE = 0.05  # seconds between two tries for the lock
_SHOWN = 20  # names listed in one error


@dataclass(frozen=True)
class VersionErrors:
    """The exceptions to raise, each made from a message: a class, or a function that makes one.

    name: what cannot be a folder's name; unknown: no folder of this name, or none that is current
    version: no such version; busy: another writer holds the lock; broken: the files are damaged
    """

    name: Callable[[str], Exception]
    unknown: Callable[[str], Exception]
    version: Callable[[str], Exception]
    busy: Callable[[str], Exception]
    broken: Callable[[str], Exception]


class VersionedFolder:
    """The named things under `root`, which is made when the first one is published.

    kind: what one is called in messages: "index", "adapter"
    keep: how many versions of each name stay; None: all
    patience: seconds that a writer waits for another one of the same name
    """

    def __init__(
        self,
        root: str | Path,
        *,
        kind: str,
        errors: VersionErrors,
        keep: int | None = None,
        patience: float = 0.0,
    ) -> None:
        if keep is not None and keep < 1:
            raise ValueError("keep must be 1 or more")
        self.root = Path(root)
        self._kind, self._errors = kind, errors
        self._keep, self._patience = keep, patience

    def check_name(self, name: str) -> str:
        """The name, if it is safe as a folder's and in a URL. Raises: `errors.name`."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise self._errors.name(
                f"{name!r} can't name an {self._kind}; use 1 to 64 letters, digits, '-', '_' and "
                "'.', a letter or digit first"
            )
        return name

    def names(self) -> tuple[str, ...]:
        """What has at least one version, in alphabetical order."""
        if not self.root.is_dir():
            return ()
        named = sorted(entry.name for entry in self.root.iterdir() if _NAME.fullmatch(entry.name))
        return tuple(name for name in named if self._numbers(name))

    def versions(self, name: str) -> tuple[int, ...]:
        """The kept versions, oldest first: at least one.

        Raises: `errors.name`, `errors.unknown`.
        """
        numbers = self._numbers(name)
        if not numbers:
            raise self.unknown(name)
        return numbers

    def current(self, name: str) -> int | None:
        """The version that the link names, None without a link. Cheap: one readlink.

        Raises: `errors.name`; `errors.broken` if the link leads to no version.
        """
        link = self.folder(name) / _CURRENT
        try:
            target = link.readlink().name
        except OSError:
            return None
        if not target.isdecimal():
            raise self._errors.broken(f"{link} leads to {target!r}, which is no version")
        return int(target)

    def folder(self, name: str) -> Path:
        """Where the versions of a name lie, whether there are any or not. Raises: `errors.name`."""
        return self.root / self.check_name(name)

    def version_folder(self, name: str, version: int) -> Path:
        """Where a version lies.

        Raises: `errors.name`, `errors.unknown`, `errors.version`; `errors.broken` if the version is
            the current one and is missing.
        """
        folder = self.folder(name) / str(version)
        if folder.is_dir():
            return folder
        if version == self.current(name):
            raise self._errors.broken(f"{folder}, the current version, is missing; roll back")
        kept = ", ".join(map(str, self.versions(name)))
        raise self._errors.version(
            f"the {self._kind} {name!r} has no version {version}; kept are {kept}"
        )

    def has_current(self, name: str) -> bool:
        """Whether a version was ever made current; its link may be broken all the same."""
        return (self.folder(name) / _CURRENT).is_symlink()

    def unknown(self, name: str) -> Exception:
        """The error for a name that is not there; it lists those that are."""
        names = self.names()
        near = difflib.get_close_matches(name, names, 1)
        if near:
            there = f"did you mean {near[0]!r}?"
        else:
            there = f"there are {', '.join(names[:_SHOWN])}" if names else "there is none yet"
        return self._errors.unknown(f"no {self._kind} is called {name!r}; {there}")

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Keep other writers of this name out, in this process and others, and clean up.

        Raises: `errors.name`; `errors.busy` if another one is still at it after `patience` seconds.
        """
        self.check_name(name)
        locks = self.root / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._patience
        with (locks / name).open("wb") as lock:
            while not _locked(lock):
                if time.monotonic() >= deadline:
                    raise self._errors.busy(
                        f"the {self._kind} {name!r} is being changed by someone else; try again "
                        "when that is done"
                    )
                time.sleep(_PAUSE)
            self._sweep(name)
            yield

    def publish(
        self, name: str, write: Callable[[Path], object], *, make_current: bool = False
    ) -> int:
        """Add a version that `write` fills an empty folder with; returns its number.

        Only inside `writing`. Versions beyond `keep` are removed, the oldest first.
        """
        folder = self.folder(name)
        folder.mkdir(exist_ok=True)
        sync_folder(self.root)
        staged = folder / f"{_STAGED}{secrets.token_hex(4)}"
        staged.mkdir()
        write(staged)
        version = max(self._numbers(name), default=0) + 1
        publish_folder(staged, folder / str(version))
        if make_current:
            self.make_current(name, version)
        if self._keep is not None:
            for old in self._numbers(name)[: -self._keep]:
                self._discard(folder / str(old))
        return version

    def make_current(self, name: str, version: int) -> None:
        """Point the link to a version that is there, atomically. Only inside `writing`.

        Raises: as `version_folder`.
        """
        swap_link(self.version_folder(name, version).parent / _CURRENT, str(version))

    def delete(self, name: str) -> None:
        """Remove a name with all its versions. Only inside `writing`. Raises: `errors.unknown`."""
        self.versions(name)
        # Renamed before it is removed, so that no half-removed folder looks like a whole one.
        trash = self.root / f"{_TRASH}{name}-{secrets.token_hex(4)}"
        self.folder(name).rename(trash)
        sync_folder(self.root)
        shutil.rmtree(trash)

    def _numbers(self, name: str) -> tuple[int, ...]:
        folder = self.folder(name)
        if not folder.is_dir():
            return ()
        return tuple(sorted(int(e.name) for e in folder.iterdir() if e.name.isdecimal()))

    def _sweep(self, name: str) -> None:
        """Remove what writers that died have left; nobody else writes while the lock is held."""
        folder = self.folder(name)
        if folder.is_dir():
            for entry in folder.iterdir():
                if entry.name.startswith((_STAGED, _TRASH)):
                    shutil.rmtree(entry)
                elif entry.name.startswith(f".{_CURRENT}."):
                    entry.unlink()
        for entry in self.root.glob(f"{_TRASH}{name}-????????"):
            shutil.rmtree(entry)

    @staticmethod
    def _discard(folder: Path) -> None:
        """Rename before removing, so that no half-removed folder looks like a version."""
        trash = folder.with_name(f"{_TRASH}{folder.name}")
        folder.rename(trash)
        shutil.rmtree(trash)


def _locked(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
