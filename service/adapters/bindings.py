"""Which adapter answers for which index: one small file an index, swapped atomically.

    adapters/.indexes/INDEX    the adapter whose live version answers; no file: zero-shot
    adapters/NAME/index        the index that an adapter was made for

Several processes read and write them: the server, and the command line beside it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from indexer.store import check_name

_ACTIVE = ".indexes"
_AIM = "index"
_LIVE = "current"


class Bindings:
    """root: the folder of the adapters."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def active(self, index: str) -> str | None:
        """The adapter that answers for an index. Cheap: one small file."""
        return _read(self.root / _ACTIVE / check_name(index))

    def live(self, adapter: str) -> int | None:
        """An adapter's live version, None before the first promotion. Cheap: one readlink.

        As training.AdapterStore reads it; asking that one would import torch.
        """
        try:
            target = (self.root / adapter / _LIVE).readlink().name
        except OSError:
            return None
        return int(target) if target.isdecimal() else None

    def indexes(self, adapter: str) -> list[str]:
        """The indexes that an adapter answers for, in alphabetical order."""
        folder = self.root / _ACTIVE
        if not folder.is_dir():
            return []
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        return [name for name in names if self.active(name) == adapter]

    def bind(self, index: str, adapter: str) -> None:
        """Let an adapter answer for an index."""
        _write(self.root / _ACTIVE / check_name(index), adapter)

    def unbind(self, index: str) -> None:
        """Let the index answer zero-shot."""
        (self.root / _ACTIVE / check_name(index)).unlink(missing_ok=True)

    def aim(self, adapter: str) -> str | None:
        """The index that an adapter was made for, if that is known."""
        return _read(self.root / adapter / _AIM)

    def set_aim(self, adapter: str, index: str) -> None:
        """Note which index an adapter, which is there, was made for."""
        _write(self.root / adapter / _AIM, check_name(index))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
