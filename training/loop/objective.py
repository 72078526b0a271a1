"""What a step minimises: the loss, the recipe's penalty and the network's own."""

from __future__ import annotations

import math

from torch import Tensor

from training.data.dataset import Dataset
from training.data.imbalance import class_weights
from training.distributed import Group
from training.loop.pipeline import Pipeline
from training.losses import soft_targets
from training.recipe import Recipe


class Objective:
    """Of one process: summed over the group it is the objective of the whole batch.

    balance "weights": sum_i w_i * loss_i / sum_i w_i over the batch, w the weights of the classes.
    """

    def __init__(self, recipe: Recipe, data: Dataset, group: Group) -> None:
        self._recipe, self._group = recipe, group
        self._weights = (
            class_weights(data.train.labels, len(data.classes))
            if recipe.balance == "weights"
            else None
        )

    def __call__(
        self, pipeline: Pipeline, logits: Tensor, targets: Tensor, own: slice, weight: float
    ) -> Tensor:
        """logits: of the rows `own`; targets: of the whole batch; weight: the rows' part of it."""
        recipe, size = self._recipe, self._group.size
        each = recipe.loss.per_sample(logits, targets[own])
        if self._weights is None:
            loss = each.mean() * weight
        else:
            heavy = soft_targets(targets, logits.shape[1]) @ self._weights.to(each.device)
            # weight 0 is a stand-in row, of a process that has none
            loss = (heavy[own] * each).sum() / heavy.sum() * math.ceil(weight)
        if recipe.penalty is not None:
            loss = loss + recipe.penalty(pipeline.network) / size
        extra = pipeline.own_penalty()
        return loss if extra is None else loss + extra / size
