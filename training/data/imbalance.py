"""Classes of different sizes.

    weights:   w_c = N / (C N_c): a class counts by its rarity; the mean over samples is 1
    balanced:  samples drawn with probability proportional to 1 / N_c, with replacement, N a pass

Weights keep every image once a pass; balanced drawing shows rare images more often, which
augmentation has to vary.

Source: King & Zeng 2001; scikit-learn's class_weight="balanced".
"""

from __future__ import annotations

import torch
from torch import Tensor

BALANCES = ("none", "weights", "sampler")


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """int64 [N] -> float32 [C]: N / (C N_c); a class without samples gets 0."""
    counts = torch.bincount(labels, minlength=classes).float()
    weights = len(labels) / (classes * counts)
    return torch.where(counts > 0, weights, torch.zeros_like(weights))


def balanced_order(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """int64 [N] -> int64 [N]: rows drawn so that each class is equally likely."""
    chances = class_weights(labels, classes)[labels]
    return torch.multinomial(chances, len(labels), replacement=True, generator=generator)
