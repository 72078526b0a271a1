"""Image files in a folder, read one after the other; a bad one is told, not fatal."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from indexer.errors import ImageFolderError
from models import ImageError, decode_image

_ENDINGS = ".avif .bmp .gif .ico .jpe .jpeg .jpg .jp2 .png .ppm .pgm .tga .tif .tiff .webp"
IMAGE_ENDINGS = frozenset(_ENDINGS.split(" "))
_MAX_BYTES = 256 << 20  # of one file


@dataclass(frozen=True)
class ImageFile:
    """A decoded image file. path: relative to its folder, with forward slashes."""

    path: str
    image: Image.Image
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """A file that couldn't be read as an image, and why."""

    path: str
    reason: str


def list_images(folder: str | Path) -> list[str]:
    """Paths of the image files in a folder and its subfolders, relative to it, in order.

    Links to folders are not followed. Raises: ImageFolderError if the folder can't be listed
    or holds no image file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageFolderError(f"{folder} is not a folder", param="folder")
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if Path(name).suffix.lower() in IMAGE_ENDINGS and not name.startswith("."):
                found.append((Path(parent) / name).relative_to(folder).as_posix())
    if not found:
        raise ImageFolderError(
            f"{folder} holds no image files (looked for {_ENDINGS})",
            param="folder",
        )
    return sorted(found)


def read_images(folder: str | Path, paths: list[str]) -> Iterator[ImageFile | Skipped]:
    """Each file in turn, decoded, or why it can't be."""
    for path in paths:
        yield read_image(Path(folder) / path, path)


def read_image(file: Path, path: str) -> ImageFile | Skipped:
    """One file, decoded, or why it can't be."""
    try:
        if (size := file.stat().st_size) > _MAX_BYTES:
            return Skipped(path, f"the file has {size:,} bytes, more than {_MAX_BYTES:,}")
        data = file.read_bytes()
        return ImageFile(path, decode_image(data), len(data), hashlib.sha256(data).hexdigest())
    except OSError as error:
        return Skipped(path, f"can't be read: {error.strerror or error}")
    except ImageError as error:
        return Skipped(path, error.message)
