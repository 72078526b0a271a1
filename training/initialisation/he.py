"""He: keep the variance through ReLU, which halves it.

    W ~ N(0, 2 / Din)

Source: He et al. 2015, "Delving Deep into Rectifiers", arXiv:1502.01852, eq. 10.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.parts import part


@part
@dataclass(frozen=True)
class He:
    """W ~ N(0, 2 / Din)."""

    def fill(self, weight: Tensor) -> None:
        """Fill `weight` in place."""
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
