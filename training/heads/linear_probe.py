"""A plain linear probe.

    z = s * x (T + D)^T + b,   D = 0, b = 0 at the start      start "text"
    z = s * x D^T + b                                         start "zero"

From zero it is the classic probe: first loss log C, and worse than zero-shot until about 8
images a class. From the text it starts at zero-shot, but nothing holds it there, and its vectors
don't keep unit length. s only scales the learning rate's effect.

Source: Radford et al. 2021, arXiv:2103.00020, section 3.2 and appendix A.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from training.data.dataset import Dataset, ZeroShot
from training.heads.feature_head import FeatureHead
from training.method import need_zero_shot
from training.parts import check_choice, check_share, part


class LinearHead(FeatureHead):
    """Free class vectors with a bias, on top of (or without) the text vectors."""

    start: Tensor

    def __init__(
        self, zero_shot: ZeroShot, *, from_text: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__(zero_shot)
        start = zero_shot.text if from_text else torch.zeros_like(zero_shot.text)
        self.register_buffer("start", start.clone())
        self.delta = nn.Parameter(torch.zeros_like(start))
        self.bias = nn.Parameter(torch.zeros(len(start)))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        return self.scaled(self.dropout(x) @ (self.start + self.delta).T) + self.bias

    @classmethod
    def _empty(cls, zero_shot: ZeroShot, tensors: Mapping[str, Tensor]) -> Self:
        return cls(zero_shot)


@part
@dataclass(frozen=True)
class LinearProbe:
    """start: "text" or "zero"."""

    start: str = "text"
    dropout: float = 0.0

    trained = True

    def __post_init__(self) -> None:
        check_choice("start", self.start, ("text", "zero"))
        check_share("dropout", self.dropout, upper_open=True)

    @property
    def starts_at_zero_shot(self) -> bool:
        """Only from the text vectors."""
        return self.start == "text"

    def build(self, data: Dataset) -> nn.Module:
        """See `Method.build`."""
        zero_shot = need_zero_shot(data, "LinearProbe")
        return LinearHead(zero_shot, from_text=self.start == "text", dropout=self.dropout)

    def plain(self) -> LinearProbe:
        """No dropout."""
        return replace(self, dropout=0.0)
