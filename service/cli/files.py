"""Image files named on the command line."""

from __future__ import annotations

from pathlib import Path

from service.errors import PathError


def read_image(path: Path) -> bytes:
    """A file's bytes. Raises: PathError."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PathError(f"can't read {path}: {reason}", param="path") from error
