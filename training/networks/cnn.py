"""A small residual CNN for images of 16 to 64 pixels, with every choice of the syllabus as a
setting.

stem conv -> 3 stages of (residual block, pool) with width, 2 width, 4 width channels -> mean ->
linear
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from training.data.dataset import Dataset
from training.errors import RecipeError
from training.initialisation import Initialisation, initialise
from training.layers import FractionalMaxPool, Residual, activation, norm2d, zero_last_layer
from training.parts import check_choice, check_share, part


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
