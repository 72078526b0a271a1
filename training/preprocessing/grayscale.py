"""Grayscale as colour: the one channel, three times.

    R = G = B = luminance

Not one channel plus two of zeros: a network trained on colour reads that as deep red.
"""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from training.errors import DataError


def replicate_channels(images: Tensor) -> Tensor:
    """[N, 1, H, W] -> [N, 3, H, W]; three channels stay as they are.

    Raises: DataError for another number of channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(f"images must be [N, 1 or 3, H, W], got {list(images.shape)}")
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def as_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as RGB; transparency becomes white, as the encoders do it."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
