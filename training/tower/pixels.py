"""From features back to pictures: the same split, with the images that its names lead to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.preprocess import Preprocessor
from training.data.dataset import Dataset, Samples
from training.data.folder import read_image
from training.errors import DataError


def pixel_dataset(data: Dataset, preprocessor: Preprocessor) -> Dataset:
    """A Dataset of features -> the same samples as images [N, 3, H, W] in [0, 1], sized as the
    model wants them. All are held in memory: 12 bytes a pixel.

    Raises: DataError where a sample's name leads to no readable file.
    """
    retention = data.retention
    if retention is not None:
        retention = replace(retention, samples=_as_pixels(retention.samples, preprocessor))
    return replace(
        data,
        train=_as_pixels(data.train, preprocessor),
        val=_as_pixels(data.val, preprocessor),
        retention=retention,
    )


def _as_pixels(samples: Samples, preprocessor: Preprocessor) -> Samples:
    if len(samples.names) != len(samples):
        raise DataError(
            "to tune the model itself its images are needed, not features alone: read them from a"
            " folder"
        )
    height, width = preprocessor.config.size
    inputs = torch.empty(len(samples), 3, height, width)
    for row, name in enumerate(samples.names):
        inputs[row] = scaled(preprocessor.fitted(read_image(Path(name))))
    return replace(samples, inputs=inputs)


def scaled(pixels: np.ndarray) -> Tensor:
    """uint8 [..., 3, H, W] -> float32 in [0, 1], rounded as the encoder's preprocessing rounds."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255


def bytes_of(pixels: Tensor) -> np.ndarray:
    """`scaled` undone, to the bit."""
    back: np.ndarray = (pixels * 255).round().byte().numpy()
    return back
