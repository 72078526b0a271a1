"""What one step sees: the rows' inputs and targets, augmented."""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.dataset import Dataset
from training.losses import soft_targets
from training.recipe import Recipe


def draw_batch(
    recipe: Recipe, data: Dataset, rows: Tensor, *, device: str
) -> tuple[Tensor, Tensor]:
    """Rows of the training split -> inputs [B, ...] and targets ([B], or soft [B, C]).

    Draws from the global generators: one view of each sample by chance, then the augmentations.
    """
    inputs, targets = data.train.inputs[rows], data.train.labels[rows]
    if inputs.ndim == 3:  # features: one view of each, by chance
        views = inputs.shape[1]
        chosen = torch.randint(views, (len(rows),)) if views > 1 else torch.zeros(len(rows)).long()
        inputs = inputs[torch.arange(len(rows)), chosen]
    if recipe.augment:
        targets = soft_targets(targets, len(data.classes))
        for augment in recipe.augment:
            inputs, targets = augment.apply(inputs, targets)
    return inputs.to(device), targets.to(device)
