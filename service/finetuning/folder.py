"""A folder of class folders on the server's own disk, under a root that the settings allow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from service.errors import FolderError, UploadError
from service.finetuning.items import Item, Offered, is_litter
from service.settings import MEGA


def walk_folder(folder: str, roots: Sequence[Path], *, max_bytes: int) -> Offered:
    """What the folder offers. Links aren't followed.

    folder: absolute, or relative to one of the roots; max_bytes: all files together
    Raises: FolderError if it isn't a folder under one of the roots.
    """
    place = _allowed(folder, roots)
    offered = Offered()
    total = 0
    for entry in sorted(place.iterdir()):
        if is_litter(PurePosixPath(entry.name)):
            continue
        if entry.is_symlink():
            offered.refuse(f"{entry.name!r} is a link")
        elif not entry.is_dir():
            offered.problems.append(f"{entry.name!r} doesn't lie in a class folder, directly")
        else:
            for path in sorted(entry.iterdir()):
                name = f"{entry.name}/{path.name}"
                if is_litter(PurePosixPath(path.name)):
                    continue
                if path.is_symlink():
                    offered.refuse(f"{name!r} is a link")
                elif not path.is_file():
                    offered.problems.append(f"{name!r} is no file; classes have no subfolders")
                else:
                    size = path.stat().st_size
                    total += size
                    offered.items.append(Item(entry.name, name, _reader(path, size)))
    if total > max_bytes:
        offered.refuse(
            f"the folder holds {total / MEGA:,.0f} MB; the most is {max_bytes / MEGA:,.0f} MB"
        )
    return offered


def _allowed(folder: str, roots: Sequence[Path]) -> Path:
    if not roots:
        raise FolderError(
            "this server trains on no folders of its own (CLIPDEX_FINETUNE_ROOTS); upload a zip",
            param="folder",
        )
    for root in roots:
        try:
            place = (root / folder).resolve(strict=True)
        except (OSError, ValueError):
            continue
        if place.is_relative_to(root.resolve()) and place.is_dir():
            return place
    raise FolderError(f"{folder!r} is no folder under an allowed root", param="folder")


def _reader(path: Path, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                return file.read(size + 1)
        except OSError as error:
            raise UploadError(f"can't be read ({error.strerror})") from error

    return read
