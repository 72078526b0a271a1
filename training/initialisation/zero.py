"""All weights zero.

    W = 0

Right for a linear classifier (its first loss is log C) and for a residual branch's last layer; in
hidden layers all units then get the same gradient and stay copies of each other.

Source: the lecture's "what happens when W = 0 init is used?".
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.parts import part


@part
@dataclass(frozen=True)
class Zero:
    """W = 0."""

    def fill(self, weight: Tensor) -> None:
        """Fill `weight` in place."""
        nn.init.zeros_(weight)
