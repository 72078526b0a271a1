"""Which files are taken for images by their names."""

from __future__ import annotations

from pathlib import PurePosixPath

# What a folder is searched for; a file that is named outright is tried whatever its ending.
IMAGE_ENDINGS = frozenset(
    f".{kind}"
    for kind in (
        *("avif", "bmp", "gif", "ico", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm"),
        *("png", "ppm", "tga", "tif", "tiff", "webp"),
    )
)


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS
