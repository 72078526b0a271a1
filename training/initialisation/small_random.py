"""Small random weights.

    W ~ N(0, std^2),  std = 0.01

`0.01 * randn` has *standard deviation* 0.01, so variance 0.0001 (the notes say variance 0.01). Fine
for shallow nets; through many layers the signal shrinks by std * sqrt(Din) a layer and vanishes.

Source: the lecture's "small random numbers".
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.parts import check_positive, part


@part
@dataclass(frozen=True)
class SmallRandom:
    """W ~ N(0, std^2)."""

    std: float = 0.01

    def __post_init__(self) -> None:
        check_positive("std", self.std)

    def fill(self, weight: Tensor) -> None:
        """Fill `weight` in place."""
        nn.init.normal_(weight, std=self.std)
