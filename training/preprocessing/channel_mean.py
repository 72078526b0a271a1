"""Subtract the mean of each channel.

    x'_c = x_c - mean_c,  one value a channel over all training images and pixels

Source: Simonyan & Zisserman 2015 (VGG), arXiv:1409.1556, section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.parts import part
from training.preprocessing.fitted import ShiftScale, channel_axes


@part
@dataclass(frozen=True)
class ChannelMean:
    """Centre each channel on its mean over the training split."""

    def fit(self, inputs: Tensor) -> nn.Module:
        """See `Preprocessing.fit`."""
        return ShiftScale(inputs.mean(dim=channel_axes(inputs), keepdim=True).squeeze(0))
