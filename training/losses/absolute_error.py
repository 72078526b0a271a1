"""Mean absolute error.

    regression:      L = mean(|f - y|)                       `absolute_error`
    classification:  L = 1/C sum_c |softmax(z)_c - y_c|      `AbsoluteError`

At zero logits L = 2 (C - 1) / C^2. Less moved by a few wrong labels than cross-entropy, and slower.

Sources: the lecture's loss table; Ghosh et al. 2017, arXiv:1712.09482 (wrong labels).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from training.losses.loss import soft_targets
from training.parts import part


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """[B, ...] and [B, ...] -> [B], the mean over all but the first axis."""
    return F.l1_loss(outputs, targets, reduction="none").flatten(1).mean(dim=1)


@part
@dataclass(frozen=True)
class AbsoluteError:
    """MAE between the softmax and the one-hot (or mixed) target."""

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_sample`."""
        wanted = soft_targets(targets, logits.shape[1]).to(logits.dtype)
        return absolute_error(logits.softmax(dim=1), wanted)

    def uninformed(self, classes: int) -> float:
        """2 (C - 1) / C^2."""
        return 2 * (classes - 1) / classes**2

    def plain(self) -> AbsoluteError:
        """Itself: there is nothing to leave out."""
        return self
