"""Fit a calibration to labelled images: half of them to fit on, half to see what it is worth.

Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2 (temperature
scaling); Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2 (the logistic
fit and its smoothed targets).
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.category_index import CategoryIndex
from indexer.errors import ImageFolderError
from indexer.evaluation.evaluation import Evaluation, evaluate, judge, thresholds
from indexer.evaluation.labelled_images import EmbeddedImages
from indexer.ranking.calibration import Calibration
from indexer.ranking.ranking import Evidence
from indexer.ranking.tail import softmax_weights

Floats = NDArray[np.float64]

_LEAST_IMAGES = 40
_MOST_COSINES = 10_000_000  # that a temperature is fitted to: 40 MB
_LOWEST, _HIGHEST = math.log(1 / 50), math.log(50)  # of the temperature's logarithm
_STEPS = 40  # of the golden section; each shrinks the interval to 0.618 of itself
_GOLDEN = (math.sqrt(5) - 1) / 2
_CLOSEST, _SAMPLED = 50, 200  # categories of an image that the logistic is fitted to
_NEWTON = 50


@dataclass(frozen=True)
class Calibrated:
    """A calibration and what it does on the images that it wasn't fitted to."""

    calibration: Calibration
    before: Evaluation
    after: Evaluation


def calibrate(index: CategoryIndex, images: EmbeddedImages) -> Calibrated:
    """Fit temperature, logistic and thresholds to a random half of the images.

    An earlier calibration of the index counts for nothing.
    Raises: ImageFolderError for fewer than 40 images, labels that aren't in the index, or images
    that are all labelled `unknown`.
    """
    if len(images.paths) < _LEAST_IMAGES:
        raise ImageFolderError(
            f"a calibration needs at least {_LEAST_IMAGES} images, not {len(images.paths)}",
            param="images",
        )
    index = index.calibrated(None)
    order = np.random.default_rng(0).permutation(len(images.paths))
    fitted = images.take(np.sort(order[::2]))
    held_out = images.take(np.sort(order[1::2]))
    before = evaluate(index, held_out)
    seen = _Seen(index, fitted)
    temperature = seen.temperature() if index.odds.is_softmax else 1.0
    slope, offset = seen.logistic()
    draft = Calibration(
        temperature=temperature,
        slope=slope,
        offset=offset,
        thresholds=(),
        images=len(fitted.paths),
        labels=len(set(fitted.labels)),
        categories=len(index),
        ece_before=before.ece,
        ece_after=0.0,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    found = thresholds(judge(index.calibrated(draft), fitted))
    after = evaluate(index.calibrated(draft), held_out)
    calibration = dataclasses.replace(draft, thresholds=found, ece_after=after.ece)
    return Calibrated(calibration, before, after)


class _Seen:
    """What the index says of the images that a calibration is fitted to."""

    def __init__(self, index: CategoryIndex, images: EmbeddedImages) -> None:
        self._odds = index.odds
        self._crowd_size = index.crowd_size
        positions = index.positions(images.labels)
        self._cosines: list[tuple[Evidence, int]] = []
        room = _MOST_COSINES
        for evidence, position in zip(index.weigh(images.vectors), positions, strict=True):
            # Labelled `unknown`, or in none of the lists that a large index looked into.
            at = np.flatnonzero(evidence.positions == position)
            room -= len(evidence.scores) + len(evidence.unseen)
            if len(at):
                self._cosines.append((evidence, int(at[0])))
            if room <= 0:
                break
        if not self._cosines:
            raise ImageFolderError(
                "a calibration needs images of the index's categories", param="images"
            )

    def temperature(self) -> float:
        """The one with the least mean negative log-likelihood of the labels."""

        def loss(log_temperature: float) -> float:
            factor = self._odds.scale / math.exp(log_temperature)
            shares = [
                softmax_weights(seen.scores, seen.unseen, seen.weight, factor)[at]
                for seen, at in self._cosines
            ]
            return float(-np.log(np.maximum(shares, 1e-300)).mean())

        return math.exp(_minimum(loss, _LOWEST, _HIGHEST))

    def logistic(self) -> tuple[float, float]:
        """Slope and offset for the logits of independent probabilities.

        Of each image its label, the closest other categories, and a sample of the rest, each of
        which stands for its share of them.
        """
        chance = np.random.default_rng(0)
        logits, labels, weights = [], [], []
        for seen, at in self._cosines:
            own = self._odds.independent(seen.scores, seen.crowd, self._crowd_size)
            others = np.delete(np.arange(len(own)), at)
            others = others[np.argsort(-own[others], kind="stable")]
            close, rest = others[:_CLOSEST], others[_CLOSEST:]
            some = chance.choice(rest, min(_SAMPLED, len(rest)), replace=False)
            chosen = np.concatenate([[at], close, some])
            logits.append(own[chosen])
            labels.append(np.arange(len(chosen)) == 0)
            share = len(rest) / len(some) if len(some) else 1.0
            weights.append(np.repeat([1.0, share], [1 + len(close), len(some)]))
        return _fit_logistic(
            np.concatenate(logits), np.concatenate(labels), np.concatenate(weights)
        )


def _fit_logistic(
    logits: Floats, labels: NDArray[np.bool_], weights: Floats
) -> tuple[float, float]:
    """Slope and offset by Newton's method, all arrays [N]."""
    positive, negative = weights[labels].sum(), weights[~labels].sum()
    # Platt's targets: with few images neither class is quite certain, so that the fit is finite.
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    features = np.stack([logits, np.ones_like(logits)], axis=1)
    fitted = np.array([1.0, 0.0])
    loss = _log_loss(features @ fitted, targets, weights)
    for _ in range(_NEWTON):
        probabilities = 1 / (1 + np.exp(-np.clip(features @ fitted, -500, 500)))
        gradient = features.T @ (weights * (probabilities - targets))
        curvature = weights * np.maximum(probabilities * (1 - probabilities), 1e-12)
        step = np.linalg.solve(features.T @ (curvature[:, None] * features), gradient)
        size = 1.0
        while size > 1e-6:  # halve a step that overshoots
            tried = fitted - size * step
            better = _log_loss(features @ tried, targets, weights)
            if better <= loss:
                break
            size /= 2
        else:
            break
        converged = loss - better < 1e-9 * abs(loss)
        fitted, loss = tried, better
        if converged:
            break
    return float(fitted[0]), float(fitted[1])


def _log_loss(logits: Floats, targets: Floats, weights: Floats) -> float:
    return float((weights * (np.logaddexp(0, logits) - targets * logits)).sum())


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least, by golden section."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2
