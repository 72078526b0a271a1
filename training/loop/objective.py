"""What a step minimises: the loss, the recipe's penalty and the network's own.

Logits beyond the classes' are those of rivals: categories that are never right. What they take is

    log(1 + exp(logsumexp(rivals) - logsumexp(classes)))

which added to the cross-entropy over the classes makes the one over both.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
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
        self._classes = len(data.classes)
        self._weights = (
            class_weights(data.train.labels, len(data.classes))
            if recipe.balance == "weights"
            else None
        )

    def __call__(
        self, pipeline: Pipeline, logits: Tensor, targets: Tensor, own: slice, weight: float
    ) -> Tensor:
        """logits: [B, C], or [B, C + M] with rivals, of the rows `own`; targets: of the whole
        batch; weight: the rows' part of it.
        """
        recipe, size = self._recipe, self._group.size
        logits, rivals = logits[:, : self._classes], logits[:, self._classes :]
        each = recipe.loss.per_sample(logits, targets[own])
        if rivals.shape[1]:
            each = each + F.softplus(rivals.logsumexp(dim=1) - logits.logsumexp(dim=1))
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
