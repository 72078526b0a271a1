"""How a long task tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a task is.

    stage: "checking" | "encoding" | "indexing" | "tuning" | "reading"
    done, total: in the stage's own unit
    """

    stage: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]
