"""Cutout: blank one square of each image.

    a square of edge size * H (and size * W), centred anywhere, clipped at the border

The paper sets it to 0 after centring. Here centring comes later (it is part of the network), so the
square takes the batch's mean colour, which centring turns into 0. On feature vectors, which have no
neighbourhoods, a random share `size` of the coordinates is set to 0.

Source: DeVries & Taylor 2017, "Improved Regularization of CNNs with Cutout", arXiv:1708.04552,
section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.parts import check_share, part


@part
@dataclass(frozen=True)
class Cutout:
    """size: the square's edge as a share of the image's; of vectors, the share of coordinates."""

    size: float = 0.25

    def __post_init__(self) -> None:
        check_share("size", self.size)

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Augment.apply`."""
        if inputs.ndim != 4:
            keep = torch.rand_like(inputs) >= self.size
            return inputs * keep, targets
        count, _, height, width = inputs.shape
        inside = (
            _span(count, height, self.size)[:, :, None] & _span(count, width, self.size)[:, None]
        )
        colour = inputs.mean(dim=(0, 2, 3))[:, None, None]  # (3, 1, 1)
        return torch.where(inside[:, None].to(inputs.device), colour, inputs), targets


def _span(count: int, length: int, size: float) -> Tensor:
    """bool [count, length]: for each sample the positions within its random span."""
    half = size * length / 2
    centre = torch.rand(count, 1) * length
    position = torch.arange(length) + 0.5
    return (position >= centre - half) & (position < centre + half)
