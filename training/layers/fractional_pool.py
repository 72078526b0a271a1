"""Fractional max pooling: shrink by a factor between 1 and 2, over regions that move at random.

    output edge = floor(ratio * input edge); region borders from a pseudo-random sequence

torch's `FractionalMaxPool2d` keeps drawing in eval mode, so the same image gets two answers. Here
the sequence is fixed when serving.

Source: Graham 2014, "Fractional Max-Pooling", arXiv:1412.6071, section 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import RecipeError


class FractionalMaxPool(nn.Module):
    """[N, C, H, W] -> [N, C, floor(ratio H), floor(ratio W)]: random in training, fixed in eval."""

    def __init__(self, *, kernel: int = 2, ratio: float = 0.7) -> None:
        super().__init__()
        if not 0 < ratio < 1:
            raise RecipeError(f"ratio must be between 0 and 1, got {ratio}", param="ratio")
        self.kernel = kernel
        self.ratio = ratio

    def forward(self, x: Tensor) -> Tensor:
        """Pool with regions drawn anew (training) or always the same (eval)."""
        size = (int(x.shape[-2] * self.ratio), int(x.shape[-1] * self.ratio))
        drawn = torch.rand if self.training else _halves
        samples = drawn(len(x), x.shape[1], 2, dtype=x.dtype, device=x.device)
        pooled: Tensor = F.fractional_max_pool2d(
            x, self.kernel, output_size=size, _random_samples=samples
        )
        return pooled


def _halves(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full(shape, 0.5, dtype=dtype, device=device)
