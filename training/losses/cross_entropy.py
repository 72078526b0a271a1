"""Cross-entropy over classes, for class numbers (sparse) and for one-hot or mixed targets
(categorical).

    sparse:       L = -log p_y,            p = softmax(logits)
    categorical:  L = -sum_c y_c log p_c   the same where y is one-hot
    smoothing:    y' = (1 - s) y + s / C

Takes logits. After a softmax of its own ("double softmax") a network can't get below
log(C - 1 + e) - 1; `diagnose` finds that. At zero logits L = log C, with or without smoothing.

Sources: the lecture's loss table; Szegedy et al. 2016, arXiv:1512.00567, section 7 (label
smoothing).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from training.parts import check_share, part


@part
@dataclass(frozen=True)
class CrossEntropy:
    """L = -sum_c y_c log softmax(logits)_c; `label_smoothing` s in [0, 1)."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share("label_smoothing", self.label_smoothing, upper_open=True)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_sample`."""
        return F.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.label_smoothing
        )

    def uninformed(self, classes: int) -> float:
        """Log C."""
        return math.log(classes)

    def plain(self) -> CrossEntropy:
        """Without smoothing."""
        return CrossEntropy()
