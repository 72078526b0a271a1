"""Writing that survives a crash: whole or not at all.

A file is written beside, synced, and renamed into place; a folder likewise. Renaming within one
file system is atomic (POSIX rename), and syncing the parent makes the new name last.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync_file(path: Path) -> None:
    """Wait until the file's content is on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Wait until the names in the folder are on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def write_file(path: Path, data: bytes) -> None:
    """Write and sync a new file; not atomic by itself, so only inside a staging folder."""
    path.write_bytes(data)
    sync_file(path)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, new or old, in one step: readers see all of the old or all of the new."""
    with replacing(path) as beside:
        beside.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `replace_file`, for files that something else writes: yields the path to write to.

    The folder is made if it is missing. If the block raises, `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield beside
        sync_file(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Add a line to a log, synced."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def publish_folder(staged: Path, final: Path) -> None:
    """Sync a written folder with all that is in it, and give it its final name, which is free."""
    for path in (*staged.rglob("*"), staged):
        _sync(path, os.O_RDONLY)
    staged.rename(final)
    sync_folder(final.parent)


def swap_link(link: Path, target: str) -> None:
    """Point a symbolic link, new or old, to `target` (relative to the link) atomically."""
    beside = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    beside.symlink_to(target)
    beside.replace(link)
    sync_folder(link.parent)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
