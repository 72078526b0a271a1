"""Fit a calibration to labelled images: half of them to fit on, half to see what it is worth.

Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2 (temperature
scaling); Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2 (the logistic
fit and its smoothed targets).
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.category_index import CategoryIndex
from indexer.errors import ImageFolderError
from indexer.evaluation.evaluation import Evaluation, evaluate, judge, thresholds
from indexer.evaluation.labelled_images import EmbeddedImages
from indexer.ranking.calibration import Calibration
from indexer.ranking.ranking import Evidence
from indexer.vectors.tail import softmax_weights

Floats = NDArray[np.float64]

_LEAST_IMAGES = 40
_MOST_COSINES = 10_000_000  # that a temperature is fitted to: 40 MB
_LOWEST, _HIGHEST = math.log(1 / 50), math.log(50)  # of the temperature's logarithm
_CLOSEST, _SAMPLED = 50, 200  # categories of an image that the logistic is fitted to


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
        self._others_size = index.others_size
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
        # Imported here: it takes a third of a second, which only a calibration needs.
        from scipy.optimize import minimize_scalar

        def loss(log_temperature: float) -> float:
            factor = self._odds.scale / math.exp(log_temperature)
            shares = [
                softmax_weights(seen.scores, seen.unseen, seen.weight, factor)[at]
                for seen, at in self._cosines
            ]
            return float(-np.log(np.maximum(shares, 1e-300)).mean())

        found = minimize_scalar(loss, bounds=(_LOWEST, _HIGHEST), method="bounded")
        return math.exp(float(found.x))

    def logistic(self) -> tuple[float, float]:
        """Slope and offset for the logits of independent probabilities.

        Of each image its label, the closest other categories, and a sample of the rest, each of
        which stands for its share of them.
        """
        chance = np.random.default_rng(0)
        logits, labels, weights = [], [], []
        for seen, at in self._cosines:
            own = self._odds.independent(seen.scores, seen.others, self._others_size)
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
    """Slope and offset of the least weighted log loss, all arrays [N]."""
    from scipy.optimize import minimize
    from scipy.special import expit

    positive, negative = weights[labels].sum(), weights[~labels].sum()
    # Platt's targets: with few images neither class is quite certain, so that the fit is finite.
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    features = np.stack([logits, np.ones_like(logits)], axis=1)
    shares = weights / weights.sum()  # the tolerance is one of the mean loss, whatever N is

    def loss_and_gradient(fitted: Floats) -> tuple[float, Floats]:
        told = features @ fitted
        loss = float((shares * (np.logaddexp(0, told) - targets * told)).sum())
        return loss, features.T @ (shares * (expit(told) - targets))

    def curvature(fitted: Floats) -> Floats:
        probabilities = expit(features @ fitted)
        each = shares * probabilities * (1 - probabilities)
        curved: Floats = features.T @ (each[:, None] * features)
        return curved

    start = np.array([1.0, 0.0])
    found = minimize(
        loss_and_gradient, start, jac=True, hess=curvature, method="trust-exact", tol=1e-9
    )
    return float(found.x[0]), float(found.x[1])
