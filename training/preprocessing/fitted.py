"""Preprocessing after its fit: part of the network, so that it is saved and served with it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


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
