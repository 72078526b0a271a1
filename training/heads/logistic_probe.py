"""The linear probe as a convex problem, solved to the end by scikit-learn's L-BFGS.

    min over W, b:  -sum_i log softmax(x_i W^T + b)_{y_i} + |W|^2 / (2 C)

C is chosen by stratified cross-validation within the support set, over 10^-1..10^4, never on other
images; where a class has a single one nothing can be held out, and it is 1. It
starts from nothing, so below about 8 images a class zero-shot beats it.

Source: Radford et al. 2021, arXiv:2103.00020, appendix A.3; scikit-learn's LogisticRegression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from training.data.dataset import Dataset
from training.extras import require
from training.heads.crossval import best_by_folds, log_softmax
from training.heads.linear_probe import LinearHead
from training.method import need_zero_shot
from training.parts import check_positive, part

BLIND_C = 1.0
GRID = tuple(10.0**power for power in range(-1, 5))
_STEPS = 2000


@part
@dataclass(frozen=True)
class LogisticProbe:
    """c: the inverse strength of the penalty; None chooses it within the support set."""

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
