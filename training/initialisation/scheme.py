"""How an initialisation is applied to a whole network."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@runtime_checkable
class Initialisation(Protocol):
    """A rule that fills one weight tensor in place."""

    def fill(self, weight: Tensor) -> None:
        """Fill `weight` [out, in, ...] in place."""
        ...


def initialise(network: nn.Module, scheme: Initialisation) -> None:
    """Fill the weights of all linear and convolution layers; their biases become zero."""
    for layer in network.modules():
        if isinstance(layer, LAYERS):
            scheme.fill(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def fan_in(weight: Tensor) -> int:
    """Din: the inputs that one output sums over (for a convolution, channels x kernel area)."""
    return weight[0].numel()
