"""Networks to train from scratch, or brought along."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from training.data.dataset import Dataset, ZeroShot
from training.errors import RecipeError
from training.initialisation import Initialisation, initialise
from training.layers import (
    DropConnect,
    FractionalMaxPool,
    Residual,
    activation,
    norm1d,
    norm2d,
    zero_last_layer,
)
from training.parts import check_choice, check_share, part

__all__ = [
    "MLP",
    "GivenModel",
    "MLPNetwork",
    "SmallCNN",
    "SmallCNNNetwork",
]


@runtime_checkable
class Method(Protocol):
    """A way of learning from a Dataset.

    trained: whether the loop trains what `build` returns; False for closed forms, which are done
    then starts_at_zero_shot: whether the network answers as zero-shot does before the first step
    """

    @property
    def trained(self) -> bool:
        """Whether gradient steps follow."""
        ...

    @property
    def starts_at_zero_shot(self) -> bool:
        """Whether the untrained network is the zero-shot classifier."""
        ...

    def build(self, data: Dataset) -> nn.Module:
        """A network from a batch of inputs ([B, D] or [B, 3, H, W]) to logits [B, C].

        May draw from the global generators, which `fit` has seeded.
        """
        ...

    def plain(self) -> Self:
        """The same without regularisation."""
        ...


@runtime_checkable
class Regularised(Protocol):
    """A network that brings a penalty of its own, such as an anchor."""

    def own_penalty(self) -> Tensor:
        """A scalar to add to the loss."""
        ...


def need_zero_shot(data: Dataset, name: str) -> ZeroShot:
    """The data set's text vectors.

    Raises: RecipeError where it has none.
    """
    if data.zero_shot is None or data.has_images:
        raise RecipeError(
            f"{name} works on an encoder's features: make them with encode(encoder, folder)",
            param="method",
        )
    return data.zero_shot


@part
@dataclass(frozen=True)
class GivenModel:
    """Any torch network from a batch to logits, handed over as `fit(..., model=network)`.

    zero_shot: whether it answers as zero-shot does before the first step.
    """

    zero_shot: bool = False

    trained = True

    @property
    def starts_at_zero_shot(self) -> bool:
        """As the caller says."""
        return self.zero_shot

    def build(self, data: Dataset) -> nn.Module:
        """Can't: the network isn't part of the recipe."""
        raise RecipeError("GivenModel needs the network: pass model=...", param="model")

    def plain(self) -> GivenModel:
        """Itself; dropout inside the network is switched off by the checklist."""
        return self


class MLPNetwork(nn.Module):
    """[B, ...] -> [B, C]; the input is flattened."""

    def __init__(self, settings: MLP, inputs: int, classes: int) -> None:
        super().__init__()
        layers, before = [], inputs
        for width in settings.hidden:
            linear = (
                DropConnect(before, width, p=settings.dropconnect)
                if settings.dropconnect
                else nn.Linear(before, width)
            )
            layers.append(
                nn.Sequential(
                    linear,
                    norm1d(settings.norm, width),
                    activation(settings.activation, slope=settings.slope, width=width),
                    nn.Dropout(settings.dropout),
                )
            )
            before = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.blocks(x.flatten(1)))
        return logits

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameter belongs to which layer, in timm's way (for layer-wise rates)."""
        return {"stem": r"^$", "blocks": r"^blocks\.(\d+)"}


@part
@dataclass(frozen=True)
class MLP:
    """Trained from scratch.

        h_l = dropout(activation(norm(W_l h_(l-1) + b_l))),   logits = W h_L + b

    hidden: widths; activation, norm: by their names in training.layers; slope: of "leaky_relu" left
    of zero

    Source: Goodfellow et al. 2016, "Deep Learning", chapter 6.
    """

    hidden: tuple[int, ...] = (64,)
    activation: str = "relu"
    slope: float = 0.01
    norm: str = "none"
    dropout: float = 0.0
    dropconnect: float = 0.0
    init: Initialisation | None = None

    trained = True
    starts_at_zero_shot = False

    def __post_init__(self) -> None:
        check_share("slope", self.slope, upper_open=True)
        check_share("dropout", self.dropout, upper_open=True)
        check_share("dropconnect", self.dropconnect, upper_open=True)

    def build(self, data: Dataset) -> nn.Module:
        """See `Method.build`."""
        inputs = data.train.first_views()[0].numel()
        network = MLPNetwork(self, inputs, len(data.classes))
        if self.init is not None:
            initialise(network, self.init)
            # schemes keep the signal through hidden layers; a head at zero starts at log C
            nn.init.zeros_(network.head.weight)
        return network

    def plain(self) -> MLP:
        """No dropout, no DropConnect."""
        return replace(self, dropout=0.0, dropconnect=0.0)


class SmallCNNNetwork(nn.Module):
    """[B, 3, H, W] -> [B, C]. H and W at least 16."""

    def __init__(self, settings: SmallCNN, classes: int) -> None:
        super().__init__()
        widths = [settings.width, 2 * settings.width, 4 * settings.width]
        self.stem = _conv(settings, 3, widths[0])
        stages, before = [], widths[0]
        for depth, width in enumerate(widths, start=1):
            branch = nn.Sequential(
                _conv(settings, width, width),
                nn.Conv2d(width, width, 3, padding=1, bias=settings.norm == "none"),
                norm2d(settings.norm, width),
            )
            drop = settings.stochastic_depth * depth / len(widths)  # deeper: dropped more often
            block = Residual(branch, drop=drop)
            pool = (
                nn.MaxPool2d(2)
                if settings.pool == "max"
                else FractionalMaxPool(kernel=2, ratio=0.6)
            )
            widen = nn.Conv2d(before, width, 1) if before != width else nn.Identity()
            stages.append(
                nn.Sequential(
                    widen, block, activation(settings.activation, slope=settings.slope), pool
                )
            )
            before = width
        self.blocks = nn.Sequential(*stages)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        features = self.blocks(self.stem(x)).mean(dim=(2, 3))  # (B, 4 width)
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameter belongs to which layer, in timm's way (for layer-wise rates)."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}


def _conv(settings: SmallCNN, before: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, width, 3, padding=1, bias=settings.norm == "none"),
        norm2d(settings.norm, width),
        activation(settings.activation, slope=settings.slope),
    )


@part
@dataclass(frozen=True)
class SmallCNN:
    """Trained from scratch.

    stem conv -> 3 stages of (residual block, pool) with width, 2 width, 4 width channels -> mean ->
    linear

    width: channels of the first stage; activation, norm: by their names in training.layers; slope:
    of "leaky_relu" left of zero; pool: "max" or "fractional"; dropout: before the last layer;
    stochastic_depth: of the last block, linearly less before; zero_start: residual blocks begin as
    the identity; init: of linear and convolution layers, None for torch's own
    """

    width: int = 32
    activation: str = "relu"
    slope: float = 0.01
    norm: str = "batch"
    pool: str = "max"
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    zero_start: bool = False
    init: Initialisation | None = None

    trained = True
    starts_at_zero_shot = False

    def __post_init__(self) -> None:
        check_choice("pool", self.pool, ("max", "fractional"))
        check_share("slope", self.slope, upper_open=True)
        check_share("dropout", self.dropout, upper_open=True)
        check_share("stochastic_depth", self.stochastic_depth, upper_open=True)
        if self.activation == "maxout":
            raise RecipeError("SmallCNN has no maxout; MLP has", param="activation")

    def build(self, data: Dataset) -> nn.Module:
        """See `Method.build`."""
        if not data.has_images:
            raise RecipeError(
                "SmallCNN needs images: make them with pixels(folder)", param="method"
            )
        network = SmallCNNNetwork(self, len(data.classes))
        if self.init is not None:
            initialise(network, self.init)
            # schemes keep the signal through hidden layers; a head at zero starts at log C
            nn.init.zeros_(network.head.weight)
        if self.zero_start:
            for module in network.modules():
                if isinstance(module, Residual):
                    zero_last_layer(module.branch)
        return network

    def plain(self) -> SmallCNN:
        """No dropout, no stochastic depth."""
        return replace(self, dropout=0.0, stochastic_depth=0.0)
