"""What a method does to categories that it wasn't trained on: accuracy among themselves, in words
only, before and after.

    untouched         heads with class vectors of their own: nothing else changes, by construction.
                      Among other categories all are in one ranking, and what the head
                      takes from the retention set's categories there is measured
    measured          on a retention set (half of it, where the other half chose the strength)
    left-out classes  estimated: one half of the classes is trained on, the other half is asked, and
                      the other way round (in the domain of the images at hand: it can't see what is
                      forgotten elsewhere)
    unknown           neither; the gate doesn't take that for an answer
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.dataset import Dataset, Retention
from training.heads import FeatureHead, ProjectionHead
from training.loop import Run, fit
from training.networks import need_zero_shot
from training.tower import Tuned
from training.tower.cross_validation import class_halves, left_out

UNTOUCHED, MEASURED, LEFT_OUT, UNKNOWN = "untouched", "measured", "left-out classes", "unknown"


@dataclass(frozen=True)
class Kept:
    """zero_shot, tuned: accuracies in [0, 1] over `n` images; None where nothing was measured."""

    kind: str
    zero_shot: float | None = None
    tuned: float | None = None
    n: int = 0


def head_retention(run: Run, data: Dataset) -> Kept:
    """Of a head over features."""
    head = run.network.network
    if data.retention is not None and data.others is not None and isinstance(head, FeatureHead):
        return _in_one_ranking(head, data, data.retention)
    if not isinstance(head, ProjectionHead):
        if data.retention is None:
            return Kept(UNTOUCHED)
        share = _accuracy(data.retention, data.retention.samples.first_views())
        return Kept(UNTOUCHED, share, share, len(data.retention.samples))
    if data.retention is not None:
        x = data.retention.samples.first_views()
        zero, tuned = _accuracy(data.retention, x), _accuracy(data.retention, _projected(run, x))
        return Kept(MEASURED, zero, tuned, len(x))
    if len(data.classes) < 4:
        return Kept(UNKNOWN)
    zero_right, tuned_right, count = 0.0, 0.0, 0
    for own, rest in class_halves(data, seed=run.recipe.seed):
        partial = fit(run.recipe, data.among(own))
        others = left_out(data, rest)
        x = others.samples.first_views()
        zero_right += _accuracy(others, x) * len(x)
        tuned_right += _accuracy(others, _projected(partial, x)) * len(x)
        count += len(x)
    return Kept(LEFT_OUT, zero_right / count, tuned_right / count, count)


def tower_retention(tuned: Tuned) -> Kept:
    """Of a tuned image tower."""
    retention = tuned.images.retention
    if retention is not None:
        held = retention.halves()[1]
        shares = [
            _share(tuned.logits(tower.asking(held.zero_shot), held.samples.inputs), held)
            for tower in (tuned.before, tuned.after)
        ]
        return Kept(MEASURED, shares[0], shares[1], len(held.samples))
    sweep, others = tuned.settings.sweep, tuned.settings.others
    if not others:
        return Kept(UNKNOWN)
    return Kept(LEFT_OUT, sweep.scores[0].retention, sweep.chosen.retention, others)


def _in_one_ranking(head: FeatureHead, data: Dataset, retention: Retention) -> Kept:
    others, x = retention.zero_shot.text, retention.samples.first_views()
    wanted = retention.samples.labels + len(data.classes)
    with torch.no_grad():
        answers = [
            need_zero_shot(data, "a head").among(others).logits(x),
            head.eval().ranked(x, others),
        ]
    zero, tuned = (float((a.argmax(dim=1) == wanted).double().mean()) for a in answers)
    return Kept(MEASURED, zero, tuned, len(x))


def _projected(run: Run, x: Tensor) -> Tensor:
    head = run.network.network
    assert isinstance(head, ProjectionHead)
    with torch.no_grad():
        return head.project(x)


def _accuracy(retention: Retention, features: Tensor) -> float:
    return _share(retention.zero_shot.logits(features), retention)


def _share(logits: Tensor, retention: Retention) -> float:
    return float((logits.argmax(dim=1) == retention.samples.labels).double().mean())
