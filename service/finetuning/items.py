"""Labelled images before anyone has looked into them, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

# What archivers and file managers leave behind; nobody means it.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Item:
    """One file that claims to be an image of a class.

    name: what the user calls it, for messages; read: its bytes, and never more than it announced
    """

    label: str
    name: str
    read: Callable[[], bytes]


@dataclass
class Offered:
    """What an upload holds: items, and what is wrong with the rest, in words.

    unsafe: something among the problems forbids to read any of it
    """

    items: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unsafe: bool = False

    def refuse(self, problem: str) -> None:
        """Note something for which nothing of the upload may be read."""
        self.problems.append(problem)
        self.unsafe = True


def is_litter(path: PurePosixPath) -> bool:
    """Whether this is a hidden file or what a file manager left."""
    return any(part.startswith(".") or part in _LITTER for part in path.parts)


def by_class_folder(paths: list[PurePosixPath]) -> Iterator[tuple[PurePosixPath, str | None]]:
    """Each path with its class: the folder it lies in. None where it lies in none, or too deep.

    One folder around all class folders, as archivers like to add, doesn't count.
    """
    tops = {path.parts[0] for path in paths}
    wrapped = len(tops) == 1 and all(len(path.parts) >= 3 for path in paths)
    depth = 3 if wrapped else 2
    for path in paths:
        yield path, path.parts[-2] if len(path.parts) == depth else None
