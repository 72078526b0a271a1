"""A constant rate.

    shape(t) = 1

Source: the lecture's learning rates; what the checklist's steps 3 to 5 train with.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.parts import part
from training.schedules.schedule import Schedule


@part
@dataclass(frozen=True)
class Constant(Schedule):
    """The peak rate throughout (after the warmup)."""

    def shape(self, t: int, total: int) -> float:
        """1."""
        return 1.0
