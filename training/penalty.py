"""Penalties on the weights, added to the loss: L1, L2, and both (elastic net).

    R(W) = l1 * sum |w| + l2 / 2 * sum w^2          gradient: l1 * sign(w) + l2 * w

With SGD, l2 is the same as `weight_decay`; that's what the 1/2 is for. With Adam it isn't: Adam
divides the penalty's gradient by its own running size, which AdamW's decay escapes
(`optimisers/adamw.py`). L1 drives weights to 0. Biases, norms and the logit scale are left out, as
with decay.

Sources: the lecture's regularisation slide; Zou & Hastie 2005 (elastic net).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.optimisers.groups import decays
from training.parts import check_not_negative, part


@part
@dataclass(frozen=True)
class ElasticNet:
    """l1: weight of sum |w|; l2: weight of sum w^2 / 2. Either may be 0."""

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative("l1", self.l1)
        check_not_negative("l2", self.l2)

    def __call__(self, network: nn.Module) -> Tensor:
        """The penalty over the network's trainable weights, a scalar."""
        weights = [
            weight
            for name, weight in network.named_parameters()
            if weight.requires_grad and decays(name, weight)
        ]
        if not weights:
            return torch.zeros(())
        total = weights[0].new_zeros(())
        for weight in weights:
            if self.l1:
                total = total + self.l1 * weight.abs().sum()
            if self.l2:
                total = total + self.l2 / 2 * weight.square().sum()
        return total
