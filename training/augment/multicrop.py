"""Multi-crop testing: average a network's probabilities over several crops of each image.

    p(x) = mean over crops of softmax(f(crop(x)))

Five crops: the corners and the centre; ten: those and their mirror images. Crops have `share` of
the image's edge and are resized back to the network's input size.

Source: Krizhevsky et al. 2012, section 4.1; torchvision.transforms.v2.TenCrop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.augment.batch import need_images
from training.errors import RecipeError
from training.extras import with_torchvision
from training.modes import evaluating


def crops(images: Tensor, *, share: float = 0.875, mirror: bool = True) -> Tensor:
    """[N, 3, H, W] -> [N, 10 or 5, 3, H, W].

    Raises: RecipeError for features, or a share outside (0, 1].
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
