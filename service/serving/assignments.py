"""Which adapter is assigned to which index: one small file an index, swapped atomically.

    adapters/.indexes/INDEX    the adapter whose current version answers; no file: zero-shot
    adapters/NAME/index        the index that an adapter was made for

Several processes read and write these files: servers and command lines on one data folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from indexer.store import check_name
from service.errors import ParameterError
from storage.durable import replace_file

NONE = "none"
_ASKED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:@([1-9][0-9]{0,8}))?")
_ASSIGNED = ".indexes"
_MADE_FOR = "index"
_CURRENT = "current"


@dataclass(frozen=True)
class AdapterRef:
    """A version of an adapter; as text: NAME@VERSION."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def parse_adapter(asked: str) -> tuple[str, int | None]:
    """The name, and the version if one was given. Raises: ParameterError."""
    match = _ASKED.fullmatch(asked)
    if match is None:
        raise ParameterError(
            f"adapter must be NAME, NAME@VERSION or {NONE!r}, not {asked!r}", param="adapter"
        )
    return match[1], int(match[2]) if match[2] else None


def check_precision(precision: float | None, adapter: AdapterRef | None) -> None:
    """Thresholds for a wanted precision are calibrated for the index's own answers.

    Raises: ParameterError where an adapter answers instead.
    """
    if adapter is not None and precision is not None:
        raise ParameterError(
            f"precision was calibrated without the adapter {adapter}; leave it out, "
            "or name none as the adapter",
            param="precision",
        )


class Assignments:
    """The assignment files in the folder of the adapters.

    root: the folder of the adapters
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def adapter_of(self, index: str) -> str | None:
        """The adapter that is assigned to an index. Cheap: one small file."""
        return _read(self.root / _ASSIGNED / check_name(index))

    def current_version(self, adapter: str) -> int | None:
        """An adapter's current version, None before the first promotion. Cheap: one readlink."""
        try:
            target = (self.root / adapter / _CURRENT).readlink().name
        except OSError:
            return None
        return int(target) if target.isdecimal() else None

    def current(self, index: str) -> AdapterRef | None:
        """The adapter that answers for an index; None: zero-shot answers.

        An assigned adapter that was deleted, or has no current version, counts as none.
        """
        name = self.adapter_of(index)
        version = None if name is None else self.current_version(name)
        return None if name is None or version is None else AdapterRef(name, version)

    def indexes_of(self, adapter: str) -> list[str]:
        """The indexes that an adapter is assigned to, in alphabetical order."""
        folder = self.root / _ASSIGNED
        if not folder.is_dir():
            return []
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        return [name for name in names if self.adapter_of(name) == adapter]

    def assign(self, index: str, adapter: str) -> None:
        """Let an adapter answer for an index."""
        _write(self.root / _ASSIGNED / check_name(index), adapter)

    def unassign(self, index: str) -> None:
        """Let zero-shot answer for an index."""
        (self.root / _ASSIGNED / check_name(index)).unlink(missing_ok=True)

    def made_for(self, adapter: str) -> str | None:
        """The index that an adapter was made for, if that is known."""
        return _read(self.root / adapter / _MADE_FOR)

    def set_made_for(self, adapter: str, index: str) -> None:
        """Note which index an existing adapter was made for."""
        _write(self.root / adapter / _MADE_FOR, check_name(index))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, f"{text}\n".encode())
