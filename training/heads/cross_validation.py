"""Strength and temperature chosen within the support set: stratified folds, never other images.

Source of the temperature: Guo et al. 2017, arXiv:1706.04599, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from training.data.dataset import Dataset
from training.data.splits import folds
from training.errors import require

Setting = TypeVar("Setting")
MOST_TEMPERATURE = 1000.0


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
    right, likelihood = np.zeros(len(settings)), np.zeros(len(settings))
    for fold in _folds(data, count, seed):
        wanted = fold.val.labels.numpy()
        for i, setting in enumerate(settings):
            answers = predict(fold, setting)
            right[i] += (answers.argmax(axis=1) == wanted).sum()
            likelihood[i] += answers[np.arange(len(wanted)), wanted].sum()
    best = max(range(len(settings)), key=lambda i: (right[i], likelihood[i]))
    return settings[best]


def held_out_answers(
    data: Dataset,
    setting: Setting,
    predict: Callable[[Dataset, Setting], np.ndarray],
    *,
    count: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Every training sample's answer by what the other folds taught: log probabilities [N, C], and
    the labels [N] in the same order.
    """
    answers, wanted = [], []
    for fold in _folds(data, count, seed):
        answers.append(predict(fold, setting))
        wanted.append(fold.val.labels.numpy())
    return np.concatenate(answers), np.concatenate(wanted)


def fitted_temperature(answers: np.ndarray, labels: np.ndarray) -> float:
    """T >= 1 with the best likelihood of softmax(answers / T).

    answers: log probabilities [N, C]; labels: [N]
    Never below 1: that a few held-out images are all right is no reason to be surer.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(answers / np.exp(log_temperature))
        return -float(scaled[np.arange(len(labels)), labels].mean())

    optimize = require("scipy.optimize", needed_for="GDA")
    found = optimize.minimize_scalar(loss, bounds=(0, np.log(MOST_TEMPERATURE)), method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def _folds(data: Dataset, count: int, seed: int) -> Iterator[Dataset]:
    labels = data.train.labels.numpy()
    groups = None if data.train.groups is None else data.train.groups.numpy()
    for train, held_out in folds(labels, groups, count=count, seed=seed):
        yield data.fold(train.tolist(), held_out.tolist())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """[M, C] -> [M, C], in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
