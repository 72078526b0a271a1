"""Mixup: train on convex combinations of two samples and of their labels.

    x' = l x_i + (1 - l) x_j,   y' = l y_i + (1 - l) y_j,   l ~ Beta(alpha, alpha)

Works on images and on features. One l a batch; partners are the batch in reverse (timm's Mixup). Of
an odd batch the last sample stays as it is.

Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412, eq. 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from training.augment.pairs import mix_pairs
from training.parts import check_positive, part


@part
@dataclass(frozen=True)
class Mixup:
    """l ~ Beta(alpha, alpha): 0.2 is mild, 1.0 uniform."""

    alpha: float = 0.2

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Augment.apply`."""
        return mix_pairs(inputs, targets, mixup_alpha=self.alpha)
