"""Cosine decay.

    shape(t) = floor + (1 - floor) * (1 + cos(pi t / T)) / 2

Source: Loshchilov & Hutter 2017 (SGDR), arXiv:1608.03983, eq. 5, without restarts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.parts import check_share, part
from training.schedules.schedule import Schedule


@part
@dataclass(frozen=True)
class Cosine(Schedule):
    """floor: the share of the peak rate that is left at the end."""

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("floor", self.floor)

    def shape(self, t: int, total: int) -> float:
        """Half a cosine from 1 to the floor."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * t / total)) / 2
