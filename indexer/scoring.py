"""Cosines to probabilities, over all categories."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.encoder import Vectors

Floats = NDArray[np.float64]


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Softmax along the last axis, in float64 so that a million small terms add up."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    weights: Floats = np.exp(shifted)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def sigmoid(logits: NDArray[np.floating]) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    wide = logits.astype(np.float64)
    small = np.exp(-np.abs(wide))
    return np.where(wide >= 0, 1 / (1 + small), small / (1 + small))


def best(scores: Vectors, count: int) -> NDArray[np.int64]:
    """Positions of the `count` greatest of each row, greatest first; equals in order of position.

    scores: [N, C]; returns int64 [N, min(count, C)].
    """
    count = min(count, scores.shape[1])
    if count < scores.shape[1]:
        # The count-th greatest value, then everything above it and the first of its equals:
        # argpartition alone would pick any of the equals.
        cut = -np.partition(-scores, count - 1, axis=1)[:, count - 1 : count]
        chosen = np.empty((len(scores), count), dtype=np.int64)
        for row, (values, least) in enumerate(zip(scores, cut, strict=True)):
            above = np.flatnonzero(values > least)
            equal = np.flatnonzero(values == least)[: count - len(above)]
            chosen[row] = np.sort(np.concatenate([above, equal]))
    else:
        chosen = np.broadcast_to(np.arange(count), (len(scores), count))
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)
