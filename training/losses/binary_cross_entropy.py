"""Binary cross-entropy: each class is a yes-or-no question of its own.

    L = -1/C sum_c [ y_c log s(z_c) + (1 - y_c) log(1 - s(z_c)) ],   s the sigmoid

For labels that don't exclude each other, and for heads on sigmoid models (SigLIP). At zero logits
L = log 2.

Source: the lecture's loss table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from training.losses.loss import soft_targets
from training.parts import part


@part
@dataclass(frozen=True)
class BinaryCrossEntropy:
    """The mean over classes of the two-way cross-entropy."""

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_sample`; soft rows needn't sum to 1 here."""
        wanted = soft_targets(targets, logits.shape[1]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)

    def uninformed(self, classes: int) -> float:
        """Log 2."""
        return math.log(2)

    def plain(self) -> BinaryCrossEntropy:
        """Itself: there is nothing to leave out."""
        return self
