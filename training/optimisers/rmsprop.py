"""RMSprop: divide by a running root mean square of the gradient.

    s <- a * s + (1 - a) * g^2
    w <- w - lr * g / (sqrt(s) + eps)

Source: Tieleman & Hinton 2012, lecture 6.5; torch.optim.RMSprop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from training.optimisers.groups import parameter_groups
from training.optimisers.optimiser import check_settings
from training.parts import check_share, part


@part
@dataclass(frozen=True)
class RMSprop:
    """Steps scaled by the gradient's recent size."""

    lr: float = 1e-3
    alpha: float = 0.99
    weight_decay: float = 0.0
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.lr, self.weight_decay, self.layer_decay)
        check_share("alpha", self.alpha, upper_open=True)

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
        return torch.optim.RMSprop(groups, lr=self.lr, alpha=self.alpha)

    def plain(self) -> RMSprop:
        """Without weight decay."""
        return replace(self, weight_decay=0.0)
