"""Inverse square root decay.

    shape(t) = 1 / sqrt(1 + t / scale)

The notes' lr / sqrt(t) divides by zero at t = 0: it needs t >= 1. Counting from 1, with scale = 1,
is the same. A larger scale decays later; `scale` = the warmup's length gives the Transformer's.

Source: the lecture's "inverse sqrt"; Vaswani et al. 2017, arXiv:1706.03762, eq. 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.parts import check_positive, part
from training.schedules.schedule import Schedule


@part
@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """scale: the units after which the rate has fallen to 1 / sqrt(2)."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("scale", self.scale)

    def shape(self, t: int, total: int) -> float:
        """1 / sqrt(1 + t / scale)."""
        return 1 / math.sqrt(1 + t / self.scale)
