"""AdamW: Adam with decoupled weight decay.

    w <- w - lr * decay * w - lr * (Adam's direction)

The decay escapes Adam's scaling, so it isn't the same as L2 (see `adam.py`). It is multiplied by
the current rate.

Source: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2; torch.optim.AdamW.
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
class AdamW:
    """Adam, with weights that shrink by lr * weight_decay a step."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
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
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas)

    def plain(self) -> AdamW:
        """Without weight decay."""
        return replace(self, weight_decay=0.0)
