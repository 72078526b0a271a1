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

import numpy as np
import torch
from torch import Tensor, nn

from training.data.dataset import Dataset, ZeroShot
from training.errors import require
from training.heads.cross_validation import best_by_folds, log_softmax
from training.heads.feature_head import FeatureHead
from training.networks import need_zero_shot
from training.parts import check_choice, check_positive, check_share, part


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


BLIND_C = 1.0
GRID = tuple(10.0**power for power in range(-1, 5))


_STEPS = 2000


@part
@dataclass(frozen=True)
class LogisticProbe:
    """The linear probe as a convex problem, solved to the end by scikit-learn's L-BFGS.

        min over W, b:  -sum_i log softmax(x_i W^T + b)_{y_i} + |W|^2 / (2 C)

    C is chosen by stratified cross-validation within the support set, over 10^-1..10^4, never on
    other images; where a class has a single one nothing can be held out, and it is 1. It starts
    from nothing, so with few images a class zero-shot can beat it.

    c: the inverse strength of the penalty; None chooses it within the support set.

    Source: Radford et al. 2021, arXiv:2103.00020, appendix A.3; scikit-learn's LogisticRegression.
    """

    c: float | None = None
    folds: int = 5
    seed: int = 0

    trained = False
    starts_at_zero_shot = False

    def __post_init__(self) -> None:
        if self.c is not None:
            check_positive("c", self.c)

    def build(self, data: Dataset) -> nn.Module:
        """See `Method.build`: solved when it returns."""
        zero_shot = need_zero_shot(data, "LogisticProbe")

        def predict(part_of_data: Dataset, c: float) -> np.ndarray:
            weight, bias = _solve(part_of_data, c)
            return log_softmax(part_of_data.val.first_views().numpy() @ weight.T + bias)

        c = self.c
        if c is None and data.distinct_shots < 2:
            c = BLIND_C
        elif c is None:
            c = best_by_folds(data, GRID, predict, count=self.folds, seed=self.seed)
        weight, bias = _solve(data, c)
        head = LinearHead(zero_shot, from_text=False)
        with torch.no_grad():
            head.delta.copy_(torch.from_numpy(weight) / head.logit_scale)
            head.bias.copy_(torch.from_numpy(bias) - (head.logit_bias or 0.0))
        return head.requires_grad_(False)

    def plain(self) -> LogisticProbe:
        """Itself: the penalty is the method."""
        return self


def _solve(data: Dataset, c: float) -> tuple[np.ndarray, np.ndarray]:
    linear_model = require("sklearn.linear_model", needed_for="LogisticProbe")
    inputs, labels = data.train.all_views()
    model = linear_model.LogisticRegression(C=c, max_iter=_STEPS)
    model.fit(inputs.numpy().astype(np.float64), labels.numpy())
    weight, bias = model.coef_, model.intercept_
    if len(data.classes) == 2:  # scikit-learn keeps one row then: the second class's log odds
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
