"""Send a batch through a fresh network and name the layers where the signal vanishes or explodes.

    ratio_l = E[a_l^2] / E[a_0^2]

a_l is what layer l (linear or convolution, with the activation behind it, if any) puts out, a_0
what the first such layer puts out. The mean square is used, not the variance: ReLU's outputs aren't
centred, and it's their mean square that the next layer's variance is made of (He et al. 2015, eq.
8).

Source: Glorot & Bengio 2010, section 4.2; He et al. 2015, arXiv:1502.01852, section 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.initialisation.scheme import LAYERS

VANISHES_BELOW = 1e-3
EXPLODES_ABOVE = 1e3


@dataclass(frozen=True)
class LayerVariance:
    """One layer's signal: `mean_square` of its output, `ratio` to the first layer's."""

    layer: str
    mean_square: float
    ratio: float

    @property
    def state(self) -> str:
        """ "vanishes", "explodes" or "keeps"."""
        if math.isnan(self.ratio) or self.ratio > EXPLODES_ABOVE:
            return "explodes"
        return "vanishes" if self.ratio < VANISHES_BELOW else "keeps"


@dataclass(frozen=True)
class VarianceReport:
    """What a network's initialisation does to a batch, layer by layer."""

    layers: tuple[LayerVariance, ...]

    @property
    def first_bad(self) -> LayerVariance | None:
        """The first layer from which on the signal has vanished or exploded, if any.

        A single layer that starts at zero (the end of a residual branch, LoRA's B) is none: behind
        it
        the signal goes on. Nor is the last layer: a head may start at zero.
        """
        first = None
        for layer in reversed(self.layers[:-1]):
            if layer.state == "keeps":
                break
            first = layer
        return first

    def __str__(self) -> str:
        bad = self.first_bad
        if bad is None:
            return f"the signal keeps its size through {len(self.layers)} layers"
        return f"the signal {bad.state} at layer {bad.layer} ({bad.ratio:.3g} of the first layer's)"


def variance_report(network: nn.Module, inputs: Tensor) -> VarianceReport:
    """Measure the signal through `network` for one batch, in training mode as at the first step.

    Restores the network's mode and buffers (running averages). Draws random numbers if it has
    dropout.
    """
    squares: dict[str, float] = {}
    last_layer = ""

    def layer_hook(name: str) -> object:
        def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            nonlocal last_layer
            last_layer = name
            squares[name] = float(output.detach().double().square().mean())

        return record

    def activation_hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        if last_layer:  # the activation belongs to the layer before it
            squares[last_layer] = float(output.detach().double().square().mean())

    handles = []
    for name, module in network.named_modules():
        if isinstance(module, LAYERS):
            handles.append(module.register_forward_hook(layer_hook(name)))  # type: ignore[arg-type]
        elif is_activation(module):
            handles.append(module.register_forward_hook(activation_hook))
    modes = {module: module.training for module in network.modules()}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        network.train()
        with torch.no_grad():
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
    first = next(iter(squares.values()), 0.0)
    ratio = {name: value / first if first > 0 else 0.0 for name, value in squares.items()}
    return VarianceReport(
        tuple(LayerVariance(name, value, ratio[name]) for name, value in squares.items())
    )


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation function (torch's, timm's, Maxout)."""
    from training.layers.maxout import Maxout

    kind = type(module)
    return isinstance(module, Maxout) or (
        kind.__module__ in ("torch.nn.modules.activation", "timm.layers.activations")
        and not isinstance(module, nn.MultiheadAttention)
    )
