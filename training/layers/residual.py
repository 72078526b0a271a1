"""Residual branches: stochastic depth, and a last layer that starts at zero.

    y = x + d * branch(x)
    stochastic depth:  d ~ Bernoulli(1 - p) / (1 - p) for each sample in training, 1 in serving
    zero start:        the branch's last layer is 0, so that y = x to the bit before the first step

Sources: Huang et al. 2016, "Deep Networks with Stochastic Depth", arXiv:1603.09382 (timm's
DropPath); Goyal et al. 2017, arXiv:1706.02677, section 5.1 (zero start).
"""

from __future__ import annotations

from torch import Tensor, nn

from training.extras import with_torchvision
from training.parts import check_share


class Residual(nn.Module):
    """x -> x + branch(x), any shape that the branch keeps."""

    def __init__(self, branch: nn.Module, *, drop: float = 0.0, zero_start: bool = False) -> None:
        super().__init__()
        check_share("drop", drop)
        self.branch = branch
        self.drop_path: nn.Module = with_torchvision("timm.layers").DropPath(drop)
        if zero_start:
            zero_last_layer(branch)

    def forward(self, x: Tensor) -> Tensor:
        """The input plus what is left of the branch."""
        y: Tensor = x + self.drop_path(self.branch(x))
        return y


def zero_last_layer(branch: nn.Module) -> None:
    """Set weight and bias of the branch's last layer that has a weight to zero, in place."""
    layers = [
        layer for layer in branch.modules() if isinstance(getattr(layer, "weight", None), Tensor)
    ]
    last = layers[-1]
    nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    if isinstance(getattr(last, "bias", None), Tensor):
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
