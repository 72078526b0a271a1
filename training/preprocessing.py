"""What happens to images before the network, fitted on the training split alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.encoder import Encoder, Vectors
from models.images import to_rgb
from training.errors import DataError, RecipeError
from training.parts import check_choice, check_not_negative, part

__all__ = [
    "ChannelMean",
    "ChannelStandard",
    "LinearMap",
    "MeanImage",
    "Preprocessing",
    "ShiftScale",
    "Whitening",
    "encoder_prefers_swapped",
    "replicate_channels",
    "swapped_against",
]


@runtime_checkable
class Preprocessing(Protocol):
    """A rule that is fitted on the training split, and on nothing else."""

    def fit(self, inputs: Tensor) -> nn.Module:
        """inputs: float [N, 3, H, W] in [0, 1], or [N, D] -> a module for batches of them."""
        ...


class ShiftScale(nn.Module):
    """x -> (x - mean) / std, both broadcast against one sample."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", torch.ones_like(mean) if std is None else std.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Shift and scale a batch."""
        return (x - self.mean) / self.std


class LinearMap(nn.Module):
    """x -> (x - mean) matrix, over the flattened sample; keeps the shape."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())  # (D,)
        self.register_buffer("matrix", matrix.clone())  # (D, D)

    def forward(self, x: Tensor) -> Tensor:
        """Centre and rotate a batch."""
        return ((x.flatten(1) - self.mean) @ self.matrix).view_as(x)


def channel_axes(inputs: Tensor) -> tuple[int, ...]:
    """The axes to average over for one number a channel: images [N, C, H, W] or vectors [N, D]."""
    return (0, 2, 3) if inputs.ndim == 4 else (0,)


@part
@dataclass(frozen=True)
class ChannelMean:
    """Centre each channel on its mean over the training split.

        x'_c = x_c - mean_c,  one value a channel over all training images and pixels

    Source: Simonyan & Zisserman 2015 (VGG), arXiv:1409.1556, section 2.1.
    """

    def fit(self, inputs: Tensor) -> nn.Module:
        """See `Preprocessing.fit`."""
        return ShiftScale(inputs.mean(dim=channel_axes(inputs), keepdim=True).squeeze(0))


_SMALLEST_STD = 1e-6  # a constant channel (a grey plane, a dead feature) stays 0 instead of nan


@part
@dataclass(frozen=True)
class ChannelStandard:
    """Standardise each channel; `mean` and `std` are fitted on the training split if not given.

        x'_c = (x_c - mean_c) / std_c

    Either fitted on the training split, or with the constants that a pretrained network was trained
    with.

    Source: He et al. 2016 (ResNet), arXiv:1512.03385, and its implementations.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise RecipeError("give both mean and std, or neither", param="mean")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std):
                raise RecipeError("mean and std differ in length", param="std")
            if min(self.std) <= 0:
                raise RecipeError("every std must be above 0", param="std")

    def fit(self, inputs: Tensor) -> nn.Module:
        """See `Preprocessing.fit`."""
        if self.mean is not None and self.std is not None:
            shape = (-1, 1, 1) if inputs.ndim == 4 else (-1,)
            return ShiftScale(
                torch.tensor(self.mean, dtype=inputs.dtype).view(shape),
                torch.tensor(self.std, dtype=inputs.dtype).view(shape),
            )
        axes = channel_axes(inputs)
        mean = inputs.mean(dim=axes, keepdim=True).squeeze(0)
        std = inputs.std(dim=axes, keepdim=True, correction=0).squeeze(0)
        return ShiftScale(mean, std.clamp_min(_SMALLEST_STD))


@part
@dataclass(frozen=True)
class MeanImage:
    """Centre each pixel on its mean over the training split.

        x' = x - mean over the training images, one value a channel and pixel

    Source: Krizhevsky et al. 2012 (AlexNet), section 2.
    """

    def fit(self, inputs: Tensor) -> nn.Module:
        """See `Preprocessing.fit`."""
        return ShiftScale(inputs.mean(dim=0))


MAX_WIDTH = 4096


@part
@dataclass(frozen=True)
class Whitening:
    """Whiten the flattened sample by "pca" or "zca".

        cov = X^T X / N = U S U^T          (X centred, [N, D])
        PCA:  x' = x U (S + eps)^(-1/2)
        ZCA:  x' = x U (S + eps)^(-1/2) U^T    the whitening that changes x least

    With eps = 0 and N > D the whitened training split has covariance I. eps damps directions that
    hold nothing but noise. D x D numbers: meant for vectors and small images.

    Sources: Kessy et al. 2018, arXiv:1512.00809, section 3; Bell & Sejnowski 1997 (ZCA).
    """

    kind: str = "zca"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("pca", "zca"))
        check_not_negative("eps", self.eps)

    def fit(self, inputs: Tensor) -> nn.Module:
        """See `Preprocessing.fit`.

        Raises: RecipeError where a sample has more than 4096 values.
        """
        flat = inputs.flatten(1).double()  # (N, D)
        width = flat.shape[1]
        if width > MAX_WIDTH:
            raise RecipeError(
                f"whitening {width} values a sample needs a {width} x {width} matrix; "
                f"use ChannelStandard, or inputs of at most {MAX_WIDTH} values",
                param="preprocess",
            )
        mean = flat.mean(dim=0)
        centred = flat - mean
        eigenvalues, vectors = torch.linalg.eigh(centred.T @ centred / len(flat))
        scale = (eigenvalues.clamp_min(0) + self.eps).rsqrt()
        # a direction without any spread has nothing to divide by
        scale = torch.where(scale.isfinite(), scale, torch.zeros_like(scale))
        matrix = vectors * scale  # (D, D)
        if self.kind == "zca":
            matrix = matrix @ vectors.T
        return LinearMap(mean.to(inputs.dtype), matrix.to(inputs.dtype))


def replicate_channels(images: Tensor) -> Tensor:
    """[N, 1, H, W] -> [N, 3, H, W]; three channels stay as they are.

        R = G = B = luminance

    Not one channel plus two of zeros: a network trained on colour reads that as deep red.

    Raises: DataError for another number of channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(f"images must be [N, 1 or 3, H, W], got {list(images.shape)}")
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


SURE = 4.0  # standard errors


def tint(images: Tensor) -> Tensor:
    """float [N, 3, H, W] -> [N]: mean of the first minus mean of the third channel."""
    means = images.float().mean(dim=(2, 3))
    return means[:, 0] - means[:, 2]


def swapped_against(train: Tensor, other: Tensor) -> bool:
    """Whether `other` [M, 3, H, W] looks like `train` [N, 3, H, W] with red and blue swapped.

    For each image take d = mean(red) - mean(blue). A set with the channels in the same order has
    the same mean of d; one with the channels swapped has the opposite. So, between training and
    another set,

        straight = |mean(d_train) - mean(d_other)|,  swapped = |mean(d_train) + mean(d_other)|

    in standard errors. "Swapped" needs evidence on both sides: the straight reading more than 4
    standard errors off, the swapped one less than 4 and at most a third of it. Pictures without a
    tint give no verdict. `encoder_prefers_swapped` asks a pretrained encoder
    directly.
    """
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
    straight = [to_rgb(image) for image in images]
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
