"""Xavier: keep the variance from layer to layer, for tanh and other units linear around zero.

    form "notes":   W ~ N(0, 1 / Din)              std = 1 / sqrt(Din)
    form "glorot":  W ~ N(0, 2 / (Din + Dout))     torch.nn.init.xavier_normal_

The two agree only where Din = Dout. The first keeps the variance of the activations; Glorot's own
is a compromise that also keeps the gradients'.

Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural
networks", eq. 10 and 12.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.initialisation.scheme import fan_in
from training.parts import check_choice, part


@part
@dataclass(frozen=True)
class Xavier:
    """W ~ N(0, 1 / Din), or Glorot's N(0, 2 / (Din + Dout))."""

    form: str = "notes"

    def __post_init__(self) -> None:
        check_choice("form", self.form, ("notes", "glorot"))

    def fill(self, weight: Tensor) -> None:
        """Fill `weight` in place."""
        if self.form == "glorot":
            nn.init.xavier_normal_(weight)
        else:
            nn.init.normal_(weight, std=fan_in(weight) ** -0.5)
