"""Optimisers and their parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from training.errors import RecipeError, with_torchvision
from training.parts import check_not_negative, check_positive, check_share, part

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Momentum",
    "Optimiser",
    "RMSprop",
    "decays",
    "parameter_groups",
]


@runtime_checkable
class Optimiser(Protocol):
    """Settings that build a torch optimiser. lr: the peak learning rate."""

    @property
    def lr(self) -> float:
        """The peak learning rate."""
        ...

    def build(
        self, network: nn.Module, *, lr_shares: Mapping[str, float] | None = None
    ) -> torch.optim.Optimizer:
        """An optimiser over the trainable parameters; some at a share of the rate, by name."""
        ...

    def plain(self) -> Self:
        """The same without weight decay."""
        ...


def check_settings(lr: float, weight_decay: float, layer_decay: float | None) -> None:
    """Raise RecipeError for settings that no optimiser takes."""
    check_positive("lr", lr)
    check_not_negative("weight_decay", weight_decay)
    if layer_decay is not None:
        check_positive("layer_decay", layer_decay)
        check_share("layer_decay", layer_decay)


@part
@dataclass(frozen=True)
class SGD:
    """Plain gradient descent on batches.

        w <- w - lr * (g + decay * w)

    `weight_decay` is L2 to the bit here: the penalty's gradient is decay * w.

    Source: Robbins & Monro 1951; torch.optim.SGD.
    """

    lr: float = 1e-2
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
        return torch.optim.SGD(groups, lr=self.lr)

    def plain(self) -> SGD:
        """Without weight decay."""
        return replace(self, weight_decay=0.0)


@part
@dataclass(frozen=True)
class Momentum:
    """Gradient descent with a running sum of gradients.

        v <- m * v + g + decay * w
        w <- w - lr * v              (Nesterov: w <- w - lr * (g + decay * w + m * v))

    A steady gradient moves 1 / (1 - m) times as far as with SGD at the same rate.

    Source: Sutskever et al. 2013; torch.optim.SGD.
    """

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


@part
@dataclass(frozen=True)
class RMSprop:
    """Steps scaled by the gradient's recent size.

        s <- a * s + (1 - a) * g^2
        w <- w - lr * g / (sqrt(s) + eps)

    Source: Tieleman & Hinton 2012; Graves 2013, arXiv:1308.0850, section 4.2; torch.optim.RMSprop.
    """

    lr: float = 1e-3
    alpha: float = 0.99
    weight_decay: float = 0.0
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.lr, self.weight_decay, self.layer_decay)
        check_share("alpha", self.alpha, upper_open=True)

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
        return torch.optim.RMSprop(groups, lr=self.lr, alpha=self.alpha)

    def plain(self) -> RMSprop:
        """Without weight decay."""
        return replace(self, weight_decay=0.0)


@part
@dataclass(frozen=True)
class Adam:
    """Adam, with L2 in the gradient if there is a weight decay.

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        w <- w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    `weight_decay` is added to g here (L2), and so is divided by sqrt(v): weights with large
    gradients hardly decay. `AdamW` mends that.

    Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; torch.optim.Adam.
    """

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


@part
@dataclass(frozen=True)
class AdamW:
    """Adam, with weights that shrink by lr * weight_decay a step.

        w <- w - lr * decay * w - lr * (Adam's direction)

    The decay escapes Adam's scaling, so it isn't the same as L2 (see `Adam`). It is multiplied
    by the current rate.

    Source: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2; torch.optim.AdamW.
    """

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


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay and penalties act on a parameter."""
    return parameter.ndim > 1 and not name.endswith(".bias")


def parameter_groups(
    network: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    layer_decay: float | None,
    lr_shares: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Groups for a torch optimiser, over the parameters that may change.

        decay:        weights of 2 and more dimensions; not biases, norms, PReLU slopes or the
                      logit scale
        layer decay:  lr_l = lr * d^(L - l): the nearer to the input, the slower

    layer_decay: d above, in (0, 1]; the network then has to say which parameter belongs to which
    layer, by timm's `group_matcher`. lr_shares: of some parameters, by name, as a share of `lr`.

    Raises: RecipeError where nothing is trainable, or the layers aren't known.

    Sources: timm's `param_groups_weight_decay` and `param_groups_layer_decay`, which do the work;
    Clark et al. 2020 (ELECTRA), arXiv:2003.10555, appendix A, for the layer-wise rate.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise RecipeError("nothing to train: every parameter is frozen", param="method")
    timm_optim = with_torchvision("timm.optim")
    if layer_decay is None:
        groups: list[dict[str, Any]] = timm_optim.param_groups_weight_decay(network, weight_decay)
        shares = {id(p): (lr_shares or {}).get(n, 1.0) for n, p in network.named_parameters()}
        return [
            {**group, "params": same, "lr": lr * share}
            for group in groups
            for share, same in _by_share(group["params"], shares)
        ]
    if not hasattr(network, "group_matcher"):
        raise RecipeError(
            f"layer_decay needs to know the layers, but {type(network).__name__} has no "
            "group_matcher; drop layer_decay",
            param="layer_decay",
        )
    groups = timm_optim.param_groups_layer_decay(network, weight_decay, layer_decay=layer_decay)
    return [{**group, "lr": lr * group["lr_scale"]} for group in groups]


def _by_share(
    parameters: list[nn.Parameter], shares: Mapping[int, float]
) -> list[tuple[float, list[nn.Parameter]]]:
    found: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        found.setdefault(shares[id(parameter)], []).append(parameter)
    return list(found.items())
