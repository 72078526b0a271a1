"""Mean squared error.

    regression:      L = mean((f - y)^2)                        `squared_error`
    classification:  L = 1/C sum_c (softmax(z)_c - y_c)^2       `SquaredError`, Brier's score / C

At zero logits L = (C - 1) / C^2. Its gradient vanishes with the softmax where the answer is
confidently wrong: that's why cross-entropy is the default.

Sources: the lecture's loss table; Brier 1950.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from training.losses.loss import soft_targets
from training.parts import part


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """[B, ...] and [B, ...] -> [B], the mean over all but the first axis."""
    return F.mse_loss(outputs, targets, reduction="none").flatten(1).mean(dim=1)


@part
@dataclass(frozen=True)
class SquaredError:
    """MSE between the softmax and the one-hot (or mixed) target."""

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_sample`."""
        wanted = soft_targets(targets, logits.shape[1]).to(logits.dtype)
        return squared_error(logits.softmax(dim=1), wanted)

    def uninformed(self, classes: int) -> float:
        """(C - 1) / C^2."""
        return (classes - 1) / classes**2

    def plain(self) -> SquaredError:
        """Itself: there is nothing to leave out."""
        return self
