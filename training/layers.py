"""Layers that a network can be made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import RecipeError, with_torchvision
from training.parts import check_share

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "ActivationFacts",
    "DropConnect",
    "FractionalMaxPool",
    "Maxout",
    "Residual",
    "activation",
    "norm1d",
    "norm2d",
    "zero_last_layer",
]


@dataclass(frozen=True)
class ActivationFacts:
    """formula: of one unit; saturates: the gradient vanishes for large |x| on at least one side;
    zero_centred: outputs take both signs around 0; can_die: a unit can end with gradient 0
    everywhere.
    """

    formula: str
    saturates: bool
    zero_centred: bool
    can_die: bool
    source: str


ACTIVATIONS: dict[str, ActivationFacts] = {
    "sigmoid": ActivationFacts("1 / (1 + exp(-x))", True, False, False, "Rumelhart et al. 1986"),
    "tanh": ActivationFacts("tanh(x)", True, True, False, "LeCun et al. 1998, Efficient BackProp"),
    "relu": ActivationFacts("max(0, x)", False, False, True, "Nair & Hinton 2010"),
    "leaky_relu": ActivationFacts(
        "x if x > 0 else slope * x, slope = 0.01", False, True, False, "Maas et al. 2013"
    ),
    "prelu": ActivationFacts(
        "x if x > 0 else a * x, a learned (0.25 at the start)", False, True, False, "He et al. 2015"
    ),
    "elu": ActivationFacts(
        "x if x > 0 else exp(x) - 1", True, True, False, "Clevert et al. 2016, arXiv:1511.07289"
    ),
    # Some tables have the two branches swapped; this is Klambauer et al., eq. 2.
    "selu": ActivationFacts(
        "1.0507 * x if x > 0 else 1.0507 * 1.6733 * (exp(x) - 1)",
        True,
        True,
        False,
        "Klambauer et al. 2017, arXiv:1706.02515, eq. 2",
    ),
    "maxout": ActivationFacts(
        "max over pieces of (w_k x + b_k)", False, True, False, "Goodfellow et al. 2013"
    ),
    "gelu": ActivationFacts(
        "x * Phi(x), Phi the normal distribution function",
        True,
        False,
        False,
        "Hendrycks & Gimpel 2016, arXiv:1606.08415",
    ),
    "quick_gelu": ActivationFacts(
        "x * sigmoid(1.702 x)", True, False, False, "Hendrycks & Gimpel 2016, section 2; CLIP"
    ),
    "softmax": ActivationFacts(
        "exp(x_i) / sum_j exp(x_j): for outputs, not between layers",
        True,
        False,
        False,
        "Bridle 1990",
    ),
}


_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
}


def activation(
    name: str, *, slope: float = 0.01, width: int | None = None, pieces: int = 2
) -> nn.Module:
    """An activation by its name in `ACTIVATIONS`.

    All of them are torch's or timm's, but `Maxout`. Whether one saturates, is centred on zero or
    dies in a network at hand is measured by `training.loop.facts.activation_health`.

    slope: of "leaky_relu" left of zero. width, pieces: of "maxout", which is a layer with weights
    of its own, from [N, width] to [N, width]. "softmax" works along the last axis.

    Raises: RecipeError for an unknown name, or "maxout" without a width.
    """
    if name == "leaky_relu":
        return nn.LeakyReLU(slope)
    if name == "quick_gelu":
        quick: nn.Module = with_torchvision("timm.layers").QuickGELU()
        return quick
    if name == "softmax":
        return nn.Softmax(dim=-1)
    if name == "maxout":
        if width is None:
            raise RecipeError("maxout has weights of its own: give its width", param="width")
        return Maxout(width, width, pieces=pieces)
    if name not in _BUILDERS:
        known = ", ".join(ACTIVATIONS)
        raise RecipeError(f"unknown activation {name!r}; known: {known}", param="activation")
    return _BUILDERS[name]()


NORMS = ("none", "batch", "layer", "group")


def norm2d(name: str, channels: int, *, groups: int = 8) -> nn.Module:
    """A normalisation for [N, channels, H, W] by its name in `NORMS`.

        y = gamma * (x - mean) / sqrt(var + eps) + beta

        batch:  mean and (biased) var per channel over the batch in training; in serving their
                running averages (var unbiased, momentum 0.1), so that one image's answer depends on
                its batch only while training
        layer:  over all channels and positions of each sample; the same in training and serving
        group:  over groups of channels of each sample; likewise

    Raises: RecipeError for an unknown name, or groups that don't divide the channels.

    Sources: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1; Ba et al. 2016, arXiv:1607.06450;
    Wu & He 2018, arXiv:1803.08494.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "layer":
        return nn.GroupNorm(1, channels)  # one group: all channels and positions of a sample
    if name == "group":
        if channels % groups:
            raise RecipeError(f"{groups} groups don't divide {channels} channels", param="groups")
        return nn.GroupNorm(groups, channels)
    raise RecipeError(f"unknown norm {name!r}; known: {', '.join(NORMS)}", param="norm")


def norm1d(name: str, channels: int) -> nn.Module:
    """A normalisation for [N, channels]: "none", "batch" or "layer".

    Raises: RecipeError for another name.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm1d(channels)
    if name == "layer":
        return nn.LayerNorm(channels)
    raise RecipeError(f"unknown norm {name!r} for vectors: none, batch or layer", param="norm")


class Residual(nn.Module):
    """x -> x + branch(x), any shape that the branch keeps.

        y = x + d * branch(x)
        stochastic depth:  d ~ Bernoulli(1 - p) / (1 - p) for each sample in training, 1 in serving
        zero start:        the branch's last layer is 0: y = x to the bit before the first step

    Sources: Huang et al. 2016, "Deep Networks with Stochastic Depth", arXiv:1603.09382 (timm's
    DropPath); Goyal et al. 2017, arXiv:1706.02677, section 5.1 (zero start).
    """

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


class DropConnect(nn.Linear):
    """A linear layer [N, in] -> [N, out] that drops weights with probability `p` in training.

        training:  y = x (M * W)^T / (1 - p) + b,   M_ij ~ Bernoulli(1 - p), one mask a sample
        serving:   y = x W^T + b

    The division keeps the mean, so that serving needs no change (the paper instead draws from a
    fitted Gaussian there; the plain mean is what everyone uses).

    Masks are drawn for each sample: memory N x out x in. The bias stays.

    Source: Wan et al. 2013, "Regularization of Neural Networks using DropConnect", section 3.
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


class Maxout(nn.Module):
    """[..., in_features] -> [..., out_features], each the maximum of `pieces` linear maps.

        h_i(x) = max over k = 1..K of (x W_ik + b_ik)

    It neither saturates nor dies, for K times the weights. With K = 2, one piece at zero and the
    other the identity, it is ReLU.

    Source: Goodfellow et al. 2013, "Maxout Networks", arXiv:1302.4389, section 2.
    """

    def __init__(self, in_features: int, out_features: int, *, pieces: int = 2) -> None:
        super().__init__()
        if pieces < 2:
            raise RecipeError(f"maxout needs at least 2 pieces, got {pieces}", param="pieces")
        self.pieces = pieces
        self.out_features = out_features
        self.linear = nn.Linear(in_features, out_features * pieces)

    def forward(self, x: Tensor) -> Tensor:
        """The maximum over the pieces."""
        pieces = self.linear(x).unflatten(-1, (self.out_features, self.pieces))  # (..., H, K)
        largest: Tensor = pieces.amax(dim=-1)
        return largest


class FractionalMaxPool(nn.Module):
    """[N, C, H, W] -> [N, C, floor(ratio H), floor(ratio W)]: random in training, fixed in eval.

        output edge = floor(ratio * input edge); region borders from a pseudo-random sequence

    torch's `FractionalMaxPool2d` keeps drawing in eval mode, so the same image gets two answers.
    Here the sequence is fixed when serving.

    Source: Graham 2014, "Fractional Max-Pooling", arXiv:1412.6071, section 2.
    """

    def __init__(self, *, kernel: int = 2, ratio: float = 0.7) -> None:
        super().__init__()
        if not 0 < ratio < 1:
            raise RecipeError(f"ratio must be between 0 and 1, got {ratio}", param="ratio")
        self.kernel = kernel
        self.ratio = ratio

    def forward(self, x: Tensor) -> Tensor:
        """Pool with regions drawn anew (training) or always the same (eval)."""
        size = (int(x.shape[-2] * self.ratio), int(x.shape[-1] * self.ratio))
        drawn = torch.rand if self.training else _halves
        samples = drawn(len(x), x.shape[1], 2, dtype=x.dtype, device=x.device)
        pooled: Tensor = F.fractional_max_pool2d(
            x, self.kernel, output_size=size, _random_samples=samples
        )
        return pooled


def _halves(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full(shape, 0.5, dtype=dtype, device=device)
