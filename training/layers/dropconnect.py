"""DropConnect: drop weights, where dropout drops units.

    training:  y = x (M * W)^T / (1 - p) + b,   M_ij ~ Bernoulli(1 - p), one mask a sample
    serving:   y = x W^T + b

The division keeps the mean, so that serving needs no change (the paper instead draws from a fitted
Gaussian there; the plain mean is what everyone uses).

Source: Wan et al. 2013, "Regularization of Neural Networks using DropConnect", section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.parts import check_share


class DropConnect(nn.Linear):
    """A linear layer [N, in] -> [N, out] whose weights are dropped with probability `p` in
    training.

    Masks are drawn for each sample: memory N x out x in. The bias stays.
    """

    def __init__(self, in_features: int, out_features: int, *, p: float = 0.5) -> None:
        check_share("p", p)
        super().__init__(in_features, out_features)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:  # (N, in)
        """The layer with a fresh mask (training) or the mean (serving)."""
        if not self.training or self.p == 0:
            return F.linear(x, self.weight, self.bias)
        if self.p == 1:
            return self.bias.expand(*x.shape[:-1], -1) + 0 * F.linear(x, self.weight)
        keep = torch.empty(len(x), *self.weight.shape, dtype=x.dtype, device=x.device)
        keep.bernoulli_(1 - self.p).div_(1 - self.p)  # (N, out, in)
        return torch.einsum("ni,noi->no", x, keep * self.weight) + self.bias
