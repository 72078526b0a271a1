"""What a loss is to the training loop: a number a sample, which the loop weights and averages."""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

import torch.nn.functional as F
from torch import Tensor


@runtime_checkable
class Loss(Protocol):
    """A classification loss over logits."""

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits [B, C]; targets int64 [B] or soft [B, C] with rows that sum to 1 -> [B]."""
        ...

    def uninformed(self, classes: int) -> float:
        """The loss of a model that knows nothing (all logits 0): what a zero head starts with."""
        ...

    def plain(self) -> Self:
        """The same loss without its regularisation."""
        ...


def soft_targets(targets: Tensor, classes: int) -> Tensor:
    """int64 [B] or soft [B, C] -> float [B, C]."""
    if targets.ndim == 1:
        return F.one_hot(targets, classes).float()
    return targets
