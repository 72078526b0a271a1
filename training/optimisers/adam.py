"""Adam: momentum over RMSprop, with the bias of the first steps corrected.

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
    w <- w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

`weight_decay` is added to g here (L2), and so is divided by sqrt(v): weights with large gradients
hardly decay. `AdamW` mends that.

Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; torch.optim.Adam.
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
class Adam:
    """Adam, with L2 in the gradient if there is a weight decay."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
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
        return torch.optim.Adam(groups, lr=self.lr, betas=self.betas)

    def plain(self) -> Adam:
        """Without weight decay."""
        return replace(self, weight_decay=0.0)
