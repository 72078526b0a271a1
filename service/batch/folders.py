"""Images in folders, of this machine or remote; also Hugging Face image folders."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from service.batch.endings import is_image
from service.batch.item import Item
from service.batch.lists import in_metadata, names_files
from service.batch.storage import asking, file_system

# Source: the Hugging Face documentation, "Create an image dataset": a folder with one of these is
# listed by it, in its column `file_name`, relative to the folder. Without that column it is a file
# like any other.
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def in_folder(folder: Path) -> Iterator[Item]:
    """The images of a folder and its subfolders, in the order of their names.

    Holds the names of one folder at a time. Links to folders are followed but never in circles.
    Raises: InputError for metadata that can't be used; OSError.
    """
    yield from _walk(folder, ())


def in_remote_folder(url: str) -> Iterator[Item]:
    """As `in_folder`, behind a URL. Holds all names: remote storage lists them page by page."""
    files, path = file_system(url)
    with asking(url):
        names = [str(name) for name in sorted(files.find(path))]
    parents = {
        PurePosixPath(name).parent: name
        for name in names
        if PurePosixPath(name).name in METADATA and names_files(files.unstrip_protocol(name))
    }
    for name in names:
        parent = PurePosixPath(name).parent
        if parents.get(parent) == name:
            yield from in_metadata(files.unstrip_protocol(name))
        elif is_image(name) and not any(one in parents for one in (parent, *parent.parents)):
            place = files.unstrip_protocol(name)
            yield Item(place, place)


def matching(pattern: str) -> Iterator[str]:
    """Files that a pattern matches, in order; ** stands for any number of folders."""
    for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - relative or absolute
        if Path(path).is_file():
            yield path


def matching_remote(url: str) -> Iterator[str]:
    """As `matching`, behind a URL."""
    files, path = file_system(url)
    with asking(url):
        found = files.glob(path, detail=True)
    for name in sorted(found):
        if found[name]["type"] == "file":
            yield files.unstrip_protocol(name)


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Item]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for name in METADATA:
        if (folder / name).is_file() and names_files(str(folder / name)):
            yield from in_metadata(str(folder / name))
            return
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in names:
        if is_folder:
            yield from _walk(folder / name, (*above, here))
        elif is_image(name):
            place = str(folder / name)
            yield Item(place, place)
