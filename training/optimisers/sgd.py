"""Stochastic gradient descent.

    w <- w - lr * (g + decay * w)

`weight_decay` is L2 to the bit here: the penalty's gradient is decay * w.

Source: Robbins & Monro 1951; torch.optim.SGD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from training.optimisers.groups import parameter_groups
from training.optimisers.optimiser import check_settings
from training.parts import part


@part
@dataclass(frozen=True)
class SGD:
    """Plain gradient descent on batches."""

    lr: float = 1e-2
    weight_decay: float = 0.0
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.lr, self.weight_decay, self.layer_decay)

    def build(
        self, network: nn.Module, *, lr_shares: Mapping[str, float] | None = None
    ) -> torch.optim.Optimizer:
        """See `Optimiser.build`."""
        groups = parameter_groups(
            network,
            lr=self.lr,
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
            lr_shares=lr_shares,
        )
        return torch.optim.SGD(groups, lr=self.lr)

    def plain(self) -> SGD:
        """Without weight decay."""
        return replace(self, weight_decay=0.0)
