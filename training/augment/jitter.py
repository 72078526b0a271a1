"""Colour jitter: brightness, contrast, saturation and hue, drawn for each image.

    factors ~ U(1 - s, 1 + s), hue shift ~ U(-hue, hue), in random order

Expects images in [0, 1], so it comes before standardisation (the loop applies augmentations there).

Source: torchvision.transforms.v2.ColorJitter; Krizhevsky et al. 2012, section 4.1 for the idea.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.augment.batch import need_images
from training.extras import with_torchvision
from training.parts import check_share, part


@part
@dataclass(frozen=True)
class ColourJitter:
    """strength: of brightness, contrast, saturation; hue: share of the colour circle, up to 0.5."""

    strength: float = 0.2
    hue: float = 0.0

    def __post_init__(self) -> None:
        check_share("strength", self.strength)
        check_share("hue", 2 * self.hue)

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Augment.apply`."""
        need_images(inputs, "ColourJitter")
        jitter = with_torchvision("torchvision.transforms.v2").ColorJitter(
            brightness=self.strength, contrast=self.strength, saturation=self.strength, hue=self.hue
        )
        return torch.stack([jitter(image) for image in inputs]), targets
