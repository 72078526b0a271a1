"""Named, versioned indexes under one folder: ROOT/NAME/VERSION/, see `storage.versions`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
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
from storage.versions import VersionedFolder, VersionErrors

_ERRORS = VersionErrors(
    name=partial(IndexNameError, param="index"),
    unknown=partial(UnknownIndexError, param="index"),
    version=partial(UnknownVersionError, param="version"),
    busy=partial(ConflictError, param="index"),
    broken=BrokenIndexError,
)


@dataclass(frozen=True)
class IndexInfo:
    """An index's name, the version that was asked for (by default the current one), all kept
    versions in order, and the version's manifest.
    """

    name: str
    version: int
    versions: tuple[int, ...]
    manifest: Manifest


def check_name(name: str) -> str:
    """Raises: IndexNameError unless the name is safe as a folder's and in a URL."""
    return VersionedFolder("", kind="index", errors=_ERRORS).check_name(name)


class IndexStore:
    """The indexes under `root`, which is made when the first one is published.

    keep: how many versions of each index stay on disk
    """

    def __init__(self, root: str | Path, *, keep: int = 5) -> None:
        self._folder = VersionedFolder(root, kind="index", errors=_ERRORS, keep=keep)
        self.root = self._folder.root

    def names(self) -> tuple[str, ...]:
        """The indexes that have a current version, in alphabetical order."""
        folder = self._folder
        return tuple(name for name in folder.names() if folder.has_current(name))

    def list(self) -> tuple[IndexInfo, ...]:
        """Every index. Raises: BrokenIndexError naming a damaged manifest."""
        return tuple(self.info(name) for name in self.names())

    def info(self, name: str, version: int | None = None) -> IndexInfo:
        """What an index is, without loading its vectors.

        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError.
        """
        chosen = self.current_version(name) if version is None else version
        manifest = read_manifest(self._version_folder(name, chosen))
        return IndexInfo(name, chosen, self.versions(name), manifest)

    def current_version(self, name: str) -> int:
        """The version that answers. Cheap: one readlink.

        Raises: UnknownIndexError; BrokenIndexError if the link leads to no version.
        """
        version = self._folder.current(name)
        if version is None:
            raise self._folder.unknown(name)
        return version

    def versions(self, name: str) -> tuple[int, ...]:
        """The kept versions, oldest first. Raises: UnknownIndexError."""
        return self._folder.versions(name)

    def load(
        self, name: str, version: int | None = None, *, fingerprint: str | None = None
    ) -> CategoryIndex:
        """Read a version, by default the current one.

        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError, WrongModelError.
        """
        return CategoryIndex.load(self._version_folder(name, version), fingerprint=fingerprint)

    def load_images(
        self, name: str, version: int | None = None, *, fingerprint: str | None = None
    ) -> ImageIndex:
        """As `load`, for an index of images.

        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError, WrongModelError.
        """
        return ImageIndex.load(self._version_folder(name, version), fingerprint=fingerprint)

    def publish(
        self, name: str, index: CategoryIndex | ImageIndex, *, base: int | None = None
    ) -> int:
        """Write a new version and make it the current one; returns its number.

        base: the version that the new one was made from; 0: there must be none yet
        Raises: IndexNameError; ConflictError while someone else is changing this index, or if
        `base` isn't the current version any more.
        """
        with self.writing(name):
            if base is not None:
                self._check_base(name, base)
            return self._folder.publish(name, index.write_files, make_current=True)

    def rollback(self, name: str, version: int) -> None:
        """Make a kept version the current one again.

        Raises: UnknownIndexError, UnknownVersionError, ConflictError.
        """
        with self.writing(name):
            self._check_published(name)
            self._folder.make_current(name, version)

    def delete(self, name: str) -> None:
        """Remove the index with all its versions. Raises: UnknownIndexError, ConflictError."""
        with self.writing(name):
            self._check_published(name)
            self._folder.delete(name)

    def writing(self, name: str) -> AbstractContextManager[None]:
        """Keep other writers of this index out, in this process and others.

        Raises: IndexNameError; ConflictError at once if someone else is at it.
        """
        return self._folder.writing(name)

    def _check_base(self, name: str, base: int) -> None:
        current = self._folder.current(name) or 0
        if current != base:
            raise ConflictError(
                f"the index {name!r} is at version {current} by now, not {base}; look at what "
                "has changed and try again",
                param="index",
            )

    def _check_published(self, name: str) -> None:
        """Raises: UnknownIndexError; where the link is broken, there still is an index to mend."""
        if name not in self.names():
            raise self._folder.unknown(name)

    def _version_folder(self, name: str, version: int | None) -> Path:
        current = self.current_version(name)
        return self._folder.version_folder(name, current if version is None else version)
