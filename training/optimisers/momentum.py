"""SGD with momentum.

    v <- m * v + g + decay * w
    w <- w - lr * v              (Nesterov: w <- w - lr * (g + decay * w + m * v))

A steady gradient moves 1 / (1 - m) times as far as with SGD at the same rate.

Source: Sutskever et al. 2013; torch.optim.SGD.
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
class Momentum:
    """Gradient descent with a running sum of gradients."""

    lr: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.lr, self.weight_decay, self.layer_decay)
        check_share("momentum", self.momentum, upper_open=True)

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
        return torch.optim.SGD(
            groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov and self.momentum > 0
        )

    def plain(self) -> Momentum:
        """Without weight decay."""
        return replace(self, weight_decay=0.0)
