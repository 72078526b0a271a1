"""CutMix: paste a rectangle of one image into another, and mix the labels by area.

    x' = M x_i + (1 - M) x_j,   y' = l y_i + (1 - l) y_j,   l = the share of M

The rectangle is clipped at the border before l is taken. Its edges are sqrt(1 - l0) of the image's,
l0 ~ Beta(alpha, alpha) (timm's Mixup).

Source: Yun et al. 2019, "CutMix", arXiv:1905.04899, eq. 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from training.augment.batch import need_images
from training.augment.pairs import mix_pairs
from training.parts import check_positive, part


@part
@dataclass(frozen=True)
class CutMix:
    """l0 ~ Beta(alpha, alpha)."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Augment.apply`."""
        need_images(inputs, "CutMix")
        return mix_pairs(inputs, targets, cutmix_alpha=self.alpha)
