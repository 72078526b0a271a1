"""Writing that survives a crash: whole or not at all.

A file is written beside, synced, and renamed into place; a folder likewise. Renaming within one
file system is atomic (POSIX rename), and syncing the parent makes the new name last.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

_BLOCK = 1 << 20  # bytes


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


def publish_folder(staged: Path, final: Path) -> None:
    """Give a synced folder its final name, which must be free."""
    sync_folder(staged)
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
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
