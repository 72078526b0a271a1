"""Subtract the mean of each channel and divide by its standard deviation.

    x'_c = (x_c - mean_c) / std_c

Either fitted on the training split, or with the constants that a pretrained network was trained
with.

Source: He et al. 2016 (ResNet), arXiv:1512.03385, and its implementations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.errors import RecipeError
from training.parts import part
from training.preprocessing.fitted import ShiftScale, channel_axes

_SMALLEST_STD = 1e-6  # a constant channel (a grey plane, a dead feature) stays 0 instead of nan


@part
@dataclass(frozen=True)
class ChannelStandard:
    """Standardise each channel; `mean` and `std` are fitted on the training split if not given."""

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
