"""Image files named on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from service.errors import PathError

# What a folder is searched for; a file that is named outright is tried whatever its ending.
IMAGE_ENDINGS = frozenset(
    f".{kind}"
    for kind in (
        *("avif", "bmp", "gif", "ico", "jfif", "jp2", "jpeg", "jpg", "pbm", "pgm"),
        *("png", "ppm", "tga", "tif", "tiff", "webp"),
    )
)


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The files among `paths`, and the images in the folders among them, sorted, with subfolders.

    Raises: PathError for a path that doesn't exist, or a folder without images.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
            if not inside:
                raise PathError(f"{path} holds no images; name a folder that does", param="path")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise PathError(f"{path} doesn't exist; check the path", param="path")
    return found


def read_image(path: Path) -> bytes:
    """A file's bytes. Raises: PathError."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PathError(f"can't read {path}: {reason}", param="path") from error
