"""A strength chosen within the support set: stratified folds, never other images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from training.data.dataset import Dataset
from training.data.splits import folds

Setting = TypeVar("Setting")


def best_by_folds(
    data: Dataset,
    settings: Sequence[Setting],
    predict: Callable[[Dataset, Setting], np.ndarray],
    *,
    count: int,
    seed: int,
) -> Setting:
    """The setting with the best held-out accuracy; among equals the best likelihood, then the
    first.

    predict: (a fold: train on its train, answer for its val) -> log probabilities [M, C]

    Raises: DataError where a class has too few images to hold one out.
    """
    labels = data.train.labels.numpy()
    groups = None if data.train.groups is None else data.train.groups.numpy()
    right, likelihood = np.zeros(len(settings)), np.zeros(len(settings))
    for train, held_out in folds(labels, groups, count=count, seed=seed):
        fold = data.fold(train.tolist(), held_out.tolist())
        wanted = fold.val.labels.numpy()
        for i, setting in enumerate(settings):
            answers = predict(fold, setting)
            right[i] += (answers.argmax(axis=1) == wanted).sum()
            likelihood[i] += answers[np.arange(len(wanted)), wanted].sum()
    best = max(range(len(settings)), key=lambda i: (right[i], likelihood[i]))
    return settings[best]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """[M, C] -> [M, C], in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
