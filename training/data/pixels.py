"""A folder's images as pixels, for networks that are trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps

from training.data.dataset import Dataset, Samples
from training.data.folder import ImageFolder, LabelledImage, read_image


def pixels(data: ImageFolder, *, size: int = 32) -> Dataset:
    """Images cropped to a square and resized: float32 [N, 3, size, size] in [0, 1], RGB."""
    return Dataset(train=_side(data.train, size), val=_side(data.val, size), classes=data.classes)


def _side(images: Sequence[LabelledImage], size: int) -> Samples:
    stack = torch.zeros(len(images), 3, size, size)
    for row, image in enumerate(images):
        square = ImageOps.fit(read_image(image.path), (size, size), Image.Resampling.BICUBIC)
        stack[row] = torch.from_numpy(np.asarray(square, dtype=np.float32) / 255).permute(2, 0, 1)
    return Samples(
        inputs=stack,
        labels=torch.tensor([image.label for image in images], dtype=torch.int64),
        groups=torch.tensor([image.group for image in images], dtype=torch.int64),
        names=tuple(str(image.path) for image in images),
    )
