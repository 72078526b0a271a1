"""A multilayer perceptron on vectors, or on flattened images.

    h_l = dropout(activation(norm(W_l h_(l-1) + b_l))),   logits = W h_L + b

Source: the lecture's fully connected networks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from training.data.dataset import Dataset
from training.initialisation import Initialisation, initialise
from training.layers import DropConnect, activation, norm1d
from training.parts import check_share, part


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

    hidden: widths; activation, norm: by their names in training.layers; slope: of "leaky_relu" left
    of zero
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
