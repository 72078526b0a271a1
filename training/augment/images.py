"""Augmentations of single images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.augment.mixing import need_images
from training.errors import RecipeError, with_torchvision
from training.parts import check_share, part
from training.randomness import evaluating


@part
@dataclass(frozen=True)
class Flip:
    """Mirror each image left to right with probability p. Not for letters, digits or arrows.

    Source: Krizhevsky et al. 2012, section 4.1; torchvision.transforms.v2.RandomHorizontalFlip.
    """

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
    """A random window of each image, resized to the input's size.

        area = s * H * W,  s ~ U(scale);   aspect ratio between 3/4 and 4/3

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6; torchvision's RandomResizedCrop.
    """

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
    """Move each image by up to `pixels` in both directions; the border is mirrored.

        x' = window of the old size, at a random corner, of x padded by `pixels`

    Source: He et al. 2016, arXiv:1512.03385, section 4.2.
    """

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


@part
@dataclass(frozen=True)
class ColourJitter:
    """Colour jitter: brightness, contrast, saturation and hue, drawn for each image.

        factors ~ U(1 - s, 1 + s), hue shift ~ U(-hue, hue), in random order

    Expects images in [0, 1], so it comes before standardisation (the loop applies augmentations
    there).

    strength: of brightness, contrast, saturation; hue: share of the colour circle, up to 0.5.

    Source: torchvision.transforms.v2.ColorJitter; Krizhevsky et al. 2012, section 4.1 for the idea.
    """

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


@part
@dataclass(frozen=True)
class Cutout:
    """Cutout: blank one square of each image.

        a square of edge size * H (and size * W), centred anywhere, clipped at the border

    The paper sets it to 0 after centring. Here centring comes later (it is part of the network), so
    the square takes the batch's mean colour, which centring turns into 0. On feature vectors, which
    have no neighbourhoods, a random share `size` of the coordinates is set to 0.

    size: the square's edge as a share of the image's; of vectors, the share of coordinates.

    Source: DeVries & Taylor 2017, "Improved Regularization of CNNs with Cutout", arXiv:1708.04552,
    section 3.
    """

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


def crops(images: Tensor, *, share: float = 0.875, mirror: bool = True) -> Tensor:
    """[N, 3, H, W] -> [N, 10 or 5, 3, H, W].

        p(x) = mean over crops of softmax(f(crop(x)))

    Five crops: the corners and the centre; ten: those and their mirror images. Crops have `share`
    of the image's edge and are resized back to the network's input size.

    Raises: RecipeError for features, or a share outside (0, 1].

    Source: Krizhevsky et al. 2012, section 4.1; torchvision.transforms.v2.TenCrop.
    """
    need_images(images, "multi-crop testing")
    if not 0 < share <= 1:
        raise RecipeError(f"share must be within (0, 1], got {share}", param="share")
    transforms = with_torchvision("torchvision.transforms.v2")
    height, width = images.shape[-2:]
    size = (max(1, round(share * height)), max(1, round(share * width)))
    cut = transforms.TenCrop(size) if mirror else transforms.FiveCrop(size)
    resized = [
        F.interpolate(crop, (height, width), mode="bilinear", antialias=True)
        for crop in cut(images)
    ]
    return torch.stack(resized, dim=1)


@torch.no_grad()
def multicrop_probabilities(
    network: nn.Module, images: Tensor, *, share: float = 0.875, mirror: bool = True
) -> Tensor:
    """[N, 3, H, W] -> class probabilities [N, C], averaged over the crops, in eval mode."""
    stack = crops(images, share=share, mirror=mirror)  # (N, K, 3, H, W)
    with evaluating(network):
        logits: Tensor = network(stack.flatten(0, 1))
    probabilities: Tensor = logits.softmax(dim=-1).unflatten(0, stack.shape[:2]).mean(dim=1)
    return probabilities
