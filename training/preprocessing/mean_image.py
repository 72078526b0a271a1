"""Subtract the mean image.

    x' = x - mean over the training images, one value a channel and pixel

Source: Krizhevsky et al. 2012 (AlexNet), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.parts import part
from training.preprocessing.fitted import ShiftScale


@part
@dataclass(frozen=True)
class MeanImage:
    """Centre each pixel on its mean over the training split."""

    def fit(self, inputs: Tensor) -> nn.Module:
        """See `Preprocessing.fit`."""
        return ShiftScale(inputs.mean(dim=0))
