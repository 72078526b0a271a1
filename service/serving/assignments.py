"""How an adapter is named: NAME, NAME@VERSION, or "none" for the answer without one."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from indexer.store import check_name
from service.errors import ParameterError

NONE = "none"


_ASKED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:@([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class AdapterRef:
    """A version of an adapter; as text: NAME@VERSION."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def parse_asked(asked: str) -> tuple[str, int | None]:
    """The name, and the version if one was given. Raises: ParameterError."""
    match = _ASKED.fullmatch(asked)
    if match is None:
        raise ParameterError(
            f"adapter must be NAME, NAME@VERSION or {NONE!r}, not {asked!r}", param="adapter"
        )
    return match[1], int(match[2]) if match[2] else None


def check_precision(precision: float | None, adapter: AdapterRef | None) -> None:
    """Thresholds for a wanted precision are those of an index's own answers.

    Raises: ParameterError where an adapter answers instead.
    """
    if adapter is not None and precision is not None:
        raise ParameterError(
            f"precision was calibrated without the adapter {adapter}; leave it out, "
            "or ask with adapter=none",
            param="precision",
        )


# ---- Which adapter answers for which index: one small file an index, swapped atomically.
#
#     adapters/.indexes/INDEX    the adapter whose live version answers; no file: zero-shot
#     adapters/NAME/index        the index that an adapter was made for
#
# Several processes read and write them: the server, and the command line beside it.


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
