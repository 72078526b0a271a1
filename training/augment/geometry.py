"""Flips, crops and scales, drawn for each image on its own.

    Flip:  mirrored left to right with probability p
    Crop:  a window of `scale` times the area (drawn from the range) and aspect 3/4..4/3, resized
           to the input's size
    Shift: padded by `pixels` (reflected), then a random window of the old size

Source: torchvision.transforms.v2; Szegedy et al. 2015 (Crop), He et al. 2016 section 4.2 (Shift).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.augment.batch import need_images
from training.errors import RecipeError
from training.extras import with_torchvision
from training.parts import check_share, part


@part
@dataclass(frozen=True)
class Flip:
    """Mirror left to right with probability p. Not for letters, digits or arrows."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_share("p", self.p)

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Augment.apply`."""
        need_images(inputs, "Flip")
        chosen = torch.rand(len(inputs)).to(inputs.device) < self.p
        return torch.where(chosen[:, None, None, None], inputs.flip(-1), inputs), targets


@part
@dataclass(frozen=True)
class Crop:
    """A random window of `scale` times the area, resized to the input's size."""

    scale: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise RecipeError(f"scale must rise within (0, 1], got {self.scale}", param="scale")

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Augment.apply`."""
        need_images(inputs, "Crop")
        crop = with_torchvision("torchvision.transforms.v2").RandomResizedCrop(
            tuple(inputs.shape[-2:]), scale=tuple(self.scale), antialias=True
        )
        return torch.stack([crop(image) for image in inputs]), targets


@part
@dataclass(frozen=True)
class Shift:
    """Move by up to `pixels` in both directions; the border is mirrored."""

    pixels: int = 4

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise RecipeError(f"pixels must be at least 1, got {self.pixels}", param="pixels")

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Augment.apply`."""
        need_images(inputs, "Shift")
        height, width = inputs.shape[-2:]
        padded = F.pad(inputs, [self.pixels] * 4, mode="reflect")
        corners = torch.randint(0, 2 * self.pixels + 1, (len(inputs), 2)).tolist()
        moved = [
            image[:, y : y + height, x : x + width]
            for image, (y, x) in zip(padded, corners, strict=True)
        ]
        return torch.stack(moved), targets
