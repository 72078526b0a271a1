"""Named, versioned indexes under one folder: ROOT/NAME/VERSION/ and ROOT/NAME/current -> VERSION.

A version never changes once published. Readers load it whole, so what is deleted or replaced
later doesn't disturb them; writers of one name exclude each other by a file lock, which the
operating system drops when its process dies.
"""

from __future__ import annotations

import fcntl
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.category_index import CategoryIndex
from indexer.errors import (
    BrokenIndexError,
    ConflictError,
    IndexNameError,
    UnknownIndexError,
    UnknownVersionError,
)
from indexer.image_index import ImageIndex
from indexer.manifest import Manifest, read_manifest
from storage.durable import publish_folder, swap_link, sync_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CURRENT = "current"
_STAGED = ".staged-"
_TRASH = ".trash-"
_LOCKS = ".locks"


@dataclass(frozen=True)
class IndexInfo:
    """An index's name, the version in force, all kept versions in order, and the manifest."""

    name: str
    version: int
    versions: tuple[int, ...]
    manifest: Manifest


def check_name(name: str) -> str:
    """Raises: IndexNameError unless the name is safe as a folder's and in a URL."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise IndexNameError(
            f"{name!r} can't name an index; use 1 to 64 letters, digits, '-', '_' and '.', "
            "a letter or digit first",
            param="index",
        )
    return name


class IndexStore:
    """The indexes under `root`, which is made when the first one is published.

    keep: how many versions of each index stay on disk
    """

    def __init__(self, root: str | Path, *, keep: int = 5) -> None:
        if keep < 1:
            raise ValueError("keep must be 1 or more")
        self.root = Path(root)
        self._keep = keep

    def names(self) -> tuple[str, ...]:
        """The indexes that have a published version, in alphabetical order."""
        if not self.root.is_dir():
            return ()
        folders = (entry for entry in self.root.iterdir() if _NAME.fullmatch(entry.name))
        return tuple(sorted(entry.name for entry in folders if (entry / _CURRENT).is_symlink()))

    def list(self) -> tuple[IndexInfo, ...]:
        """Every index. Raises: BrokenIndexError naming a damaged manifest."""
        return tuple(self.info(name) for name in self.names())

    def info(self, name: str, version: int | None = None) -> IndexInfo:
        """What an index is, without loading its vectors.

        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError.
        """
        current = self.current_version(name)
        chosen = current if version is None else version
        manifest = read_manifest(self._version_folder(name, chosen))
        return IndexInfo(name, chosen, self.versions(name), manifest)

    def current_version(self, name: str) -> int:
        """The version in force. Cheap: one readlink.

        Raises: UnknownIndexError; BrokenIndexError if the link leads to no version.
        """
        link = self._folder(name) / _CURRENT
        try:
            target = link.readlink().name
        except OSError as error:
            raise self._unknown(name) from error
        if not target.isdecimal():
            raise BrokenIndexError(f"{link} leads to {target!r}, which is no version")
        return int(target)

    def versions(self, name: str) -> tuple[int, ...]:
        """The kept versions, oldest first. Raises: UnknownIndexError."""
        folder = self._folder(name)
        if not folder.is_dir():
            raise self._unknown(name)
        numbers = (int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())
        return tuple(sorted(numbers))

    def load(
        self, name: str, version: int | None = None, *, fingerprint: str | None = None
    ) -> CategoryIndex:
        """Read a version, the one in force by default.

        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError, WrongModelError.
        """
        return CategoryIndex.load(self._chosen_folder(name, version), fingerprint=fingerprint)

    def load_images(
        self, name: str, version: int | None = None, *, fingerprint: str | None = None
    ) -> ImageIndex:
        """As `load`, for an index of images.

        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError, WrongModelError.
        """
        return ImageIndex.load(self._chosen_folder(name, version), fingerprint=fingerprint)

    def publish(
        self, name: str, index: CategoryIndex | ImageIndex, *, base: int | None = None
    ) -> int:
        """Write a new version and put it in force; returns its number.

        base: the version that the new one was made from; 0: there must be none yet
        Raises: IndexNameError; ConflictError while someone else is changing this index, or if
        `base` isn't in force any more.
        """
        with self.writing(name):
            if base is not None:
                self._check_base(name, base)
            return self._publish(name, index)

    def rollback(self, name: str, version: int) -> None:
        """Put a kept version back in force.

        Raises: UnknownIndexError, UnknownVersionError, ConflictError.
        """
        with self.writing(name):
            self._version_folder(name, version)
            swap_link(self._folder(name) / _CURRENT, str(version))

    def delete(self, name: str) -> None:
        """Remove the index with all its versions. Raises: UnknownIndexError, ConflictError."""
        with self.writing(name):
            if not self._exists(name):
                raise self._unknown(name)
            trash = self.root / f"{_TRASH}{name}-{secrets.token_hex(4)}"
            self._folder(name).rename(trash)
            sync_folder(self.root)
            shutil.rmtree(trash)

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Keep other writers of this index out, in this process and others.

        Raises: ConflictError at once if someone else is at it.
        """
        check_name(name)
        locks = self.root / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / name).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConflictError(
                    f"the index {name!r} is being changed by someone else; try again when that "
                    "is done",
                    param="index",
                ) from error
            self._sweep(name)
            yield

    def _check_base(self, name: str, base: int) -> None:
        current = self.current_version(name) if self._exists(name) else 0
        if current != base:
            raise ConflictError(
                f"the index {name!r} is at version {current} by now, not {base}; look at what "
                "has changed and try again",
                param="index",
            )

    def _publish(self, name: str, index: CategoryIndex | ImageIndex) -> int:
        folder = self._folder(name)
        folder.mkdir(exist_ok=True)
        sync_folder(self.root)
        version = max(self.versions(name), default=0) + 1
        staged = folder / f"{_STAGED}{secrets.token_hex(4)}"
        staged.mkdir()
        index.write_files(staged)
        publish_folder(staged, folder / str(version))
        swap_link(folder / _CURRENT, str(version))
        self._prune(name)
        return version

    def _prune(self, name: str) -> None:
        for version in self.versions(name)[: -self._keep]:
            self._discard(self._folder(name) / str(version))

    def _sweep(self, name: str) -> None:
        """Remove what writers that died have left; nobody else writes while the lock is held."""
        folder = self._folder(name)
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

    def _folder(self, name: str) -> Path:
        return self.root / check_name(name)

    def _exists(self, name: str) -> bool:
        return (self._folder(name) / _CURRENT).is_symlink()

    def _chosen_folder(self, name: str, version: int | None) -> Path:
        return self._version_folder(
            name, self.current_version(name) if version is None else version
        )

    def _version_folder(self, name: str, version: int) -> Path:
        if not self._exists(name):
            raise self._unknown(name)
        folder = self._folder(name) / str(version)
        if folder.is_dir():
            return folder
        if version == self.current_version(name):
            raise BrokenIndexError(f"{folder}, the version in force, is missing; roll back")
        kept = ", ".join(str(number) for number in self.versions(name))
        raise UnknownVersionError(
            f"the index {name!r} has no version {version}; kept are {kept}", param="version"
        )

    def _unknown(self, name: str) -> UnknownIndexError:
        names = self.names()
        there = f"there are {', '.join(names[:20])}" if names else "there is none yet"
        return UnknownIndexError(f"no index is called {name!r}; {there}", param="index")
