"""First weights, and what they do to the signal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from training.parts import check_choice, check_positive, part

__all__ = [
    "He",
    "Initialisation",
    "LayerVariance",
    "SmallRandom",
    "VarianceReport",
    "Xavier",
    "Zero",
    "fan_in",
    "initialise",
    "is_activation",
    "variance_report",
]


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


@part
@dataclass(frozen=True)
class Zero:
    """W = 0.

        W = 0

    Right for a linear classifier (its first loss is log C) and for a residual branch's last layer;
    in hidden layers all units then get the same gradient and stay copies of each other.

    Source: Goodfellow et al. 2016, "Deep Learning", section 8.4 (breaking symmetry).
    """

    def fill(self, weight: Tensor) -> None:
        """Fill `weight` in place."""
        nn.init.zeros_(weight)


@part
@dataclass(frozen=True)
class SmallRandom:
    """W ~ N(0, std^2).

        W ~ N(0, std^2),  std = 0.01

    `0.01 * randn` has *standard deviation* 0.01, so variance 0.0001 (some texts say variance 0.01).
    Fine for shallow nets; through many layers the signal shrinks by std * sqrt(Din) a layer and
    vanishes.

    Source: Krizhevsky et al. 2012, section 5 (std 0.01); Glorot & Bengio 2010 (why it vanishes).
    """

    std: float = 0.01

    def __post_init__(self) -> None:
        check_positive("std", self.std)

    def fill(self, weight: Tensor) -> None:
        """Fill `weight` in place."""
        nn.init.normal_(weight, std=self.std)


@part
@dataclass(frozen=True)
class Xavier:
    """W ~ N(0, 1 / Din), or Glorot's N(0, 2 / (Din + Dout)).

        form "notes":   W ~ N(0, 1 / Din)              std = 1 / sqrt(Din)
        form "glorot":  W ~ N(0, 2 / (Din + Dout))     torch.nn.init.xavier_normal_

    The two agree only where Din = Dout. The first keeps the variance of the activations; Glorot's
    own is a compromise that also keeps the gradients'.

    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", eq. 10 and 12.
    """

    form: str = "notes"

    def __post_init__(self) -> None:
        check_choice("form", self.form, ("notes", "glorot"))

    def fill(self, weight: Tensor) -> None:
        """Fill `weight` in place."""
        if self.form == "glorot":
            nn.init.xavier_normal_(weight)
        else:
            nn.init.normal_(weight, std=fan_in(weight) ** -0.5)


@part
@dataclass(frozen=True)
class He:
    """W ~ N(0, 2 / Din).

        W ~ N(0, 2 / Din)

    Source: He et al. 2015, "Delving Deep into Rectifiers", arXiv:1502.01852, eq. 10.
    """

    def fill(self, weight: Tensor) -> None:
        """Fill `weight` in place."""
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")


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

        ratio_l = E[a_l^2] / E[a_0^2]

    a_l is what layer l (linear or convolution, with the activation behind it, if any) puts out, a_0
    what the first such layer puts out. The mean square is used, not the variance: ReLU's outputs
    aren't centred, and it's their mean square that the next layer's variance is made of (He et al.
    2015, eq. 8).

    Restores the network's mode and buffers (running averages). Draws random numbers if it has
    dropout.

    Source: Glorot & Bengio 2010, section 4.2; He et al. 2015, arXiv:1502.01852, section 2.2.
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
    from training.layers import Maxout

    kind = type(module)
    return isinstance(module, Maxout) or (
        kind.__module__ in ("torch.nn.modules.activation", "timm.layers.activations")
        and not isinstance(module, nn.MultiheadAttention)
    )
