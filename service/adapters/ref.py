"""How an adapter is named: NAME, NAME@VERSION, or "none" for the answer without one."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
