"""In which order an epoch shows the training samples, and in which batches."""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.dataset import Dataset
from training.data.imbalance import balanced_order
from training.recipe import Recipe


def draw_order(recipe: Recipe, data: Dataset, epoch: int) -> Tensor:
    """Rows of the training split, int64 [N], for one epoch (from 0).

    Drawn from the seed and the epoch alone: it doesn't hang on what else draws random numbers.
    """
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    if recipe.balance == "sampler":
        return balanced_order(data.train.labels, len(data.classes), generator)
    return torch.randperm(len(data.train), generator=generator)


def batch_spans(count: int, size: int) -> list[tuple[int, int]]:
    """(start, end) of each batch of an epoch. A last batch of one sample is left out: BatchNorm
    can't take it; the order changes each epoch, so every sample has its turn.
    """
    spans = [(start, min(start + size, count)) for start in range(0, count, size)]
    if len(spans) > 1 and spans[-1][1] - spans[-1][0] == 1:
        spans.pop()
    return spans
