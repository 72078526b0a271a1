"""Detect that red and blue are swapped.

For each image take d = mean(red) - mean(blue). A set with the channels in the same order has the
same mean of d; one with the channels swapped has the opposite. So, between training and another
set,

    straight = |mean(d_train) - mean(d_other)|,  swapped = |mean(d_train) + mean(d_other)|

in standard errors. "Swapped" needs evidence on both sides: the straight reading more than 4
standard errors off, the swapped one less than 4 and at most a third of it. Pictures without a tint
give no verdict. A pretrained encoder can be asked directly: does it know the images better with the
channels swapped?
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from models.encoder import Encoder, Vectors
from training.preprocessing.grayscale import as_rgb

SURE = 4.0  # standard errors


def tint(images: Tensor) -> Tensor:
    """float [N, 3, H, W] -> [N]: mean of the first minus mean of the third channel."""
    means = images.float().mean(dim=(2, 3))
    return means[:, 0] - means[:, 2]


def swapped_against(train: Tensor, other: Tensor) -> bool:
    """Whether `other` [M, 3, H, W] looks like `train` [N, 3, H, W] with red and blue swapped."""
    a, b = tint(train).double(), tint(other).double()
    if len(a) < 2 or len(b) < 2:
        return False
    error = math.sqrt(float(a.var() / len(a) + b.var() / len(b)))
    return _swapped(float(a.mean()), float(b.mean()), error)


def _swapped(reference: float, measured: float, error: float) -> bool:
    straight, swapped = abs(reference - measured), abs(reference + measured)
    return straight > SURE * error and swapped < SURE * error and swapped < straight / 3


def encoder_prefers_swapped(
    encoder: Encoder, images: Sequence[Image.Image], labels: Sequence[int], text: Vectors
) -> bool:
    """Whether the encoder recognises the images better with red and blue swapped.

    text: float32 [C, D], a unit vector for each class. A paired test over the images' log
    probability of their own class; True at more than 4 standard errors.
    """
    straight = [as_rgb(image) for image in images]
    swapped = [Image.merge("RGB", image.split()[::-1]) for image in straight]
    own = np.asarray(labels)
    gain = _log_likelihood(encoder, swapped, own, text) - _log_likelihood(
        encoder, straight, own, text
    )
    if len(gain) < 2 or not gain.std(ddof=1) > 0:
        return False
    return bool(gain.mean() / (gain.std(ddof=1) / math.sqrt(len(gain))) > SURE)


def _log_likelihood(
    encoder: Encoder, images: Sequence[Image.Image], own: np.ndarray, text: Vectors
) -> np.ndarray:
    logits = encoder.logit_scale * (encoder.encode_images(images) @ text.T).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    likelihood: np.ndarray = logits[np.arange(len(own)), own] - np.log(np.exp(logits).sum(axis=1))
    return likelihood
