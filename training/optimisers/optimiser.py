"""What an optimiser is to a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self, runtime_checkable

import torch
from torch import nn

from training.parts import check_not_negative, check_positive, check_share


@runtime_checkable
class Optimiser(Protocol):
    """Settings that build a torch optimiser. lr: the peak learning rate."""

    @property
    def lr(self) -> float:
        """The peak learning rate."""
        ...

    def build(
        self, network: nn.Module, *, lr_shares: Mapping[str, float] | None = None
    ) -> torch.optim.Optimizer:
        """An optimiser over the trainable parameters; some at a share of the rate, by name."""
        ...

    def plain(self) -> Self:
        """The same without weight decay."""
        ...


def check_settings(lr: float, weight_decay: float, layer_decay: float | None) -> None:
    """Raise RecipeError for settings that no optimiser takes."""
    check_positive("lr", lr)
    check_not_negative("weight_decay", weight_decay)
    if layer_decay is not None:
        check_positive("layer_decay", layer_decay)
        check_share("layer_decay", layer_decay)
