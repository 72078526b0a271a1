"""Writing that survives a crash: a folder appears whole or not at all, a link moves at once.

What is written is synced before it gets its name; renaming is atomic (POSIX).
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path


def sha256_of(path: Path) -> str:
    """A file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish_folder(staged: Path, final: Path) -> None:
    """Sync a written folder with all that is in it, and give it its final name, which is free."""
    for path in (*staged.rglob("*"), staged):
        _sync(path)
    staged.rename(final)
    _sync(final.parent)


def swap_link(link: Path, target: str) -> None:
    """Point a symbolic link, new or old, to `target` (beside it) at once."""
    beside = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    beside.symlink_to(target)
    beside.replace(link)
    _sync(link.parent)


def append_line(path: Path, line: str) -> None:
    """Add a line to a log, synced."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
