"""metrics.json: zero-shot and tuned on the same held-out samples, and the gate's verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from training.data.dataset import Dataset
from training.judging.gate import GateLimits, GateReport, gate, share_interval
from training.judging.metrics import ranked_logits, score
from training.judging.retention import UNKNOWN, UNTOUCHED, Kept, head_retention, tower_retention
from training.loop import Run
from training.networks import need_zero_shot
from training.tower import Tuned
from training.tower.network import need_text


def measure(run: Run, data: Dataset, *, limits: GateLimits | None = None) -> dict[str, Any]:
    """Of a head over features, on the validation split, in one ranking with the other categories.

    Without a validation split there is nothing to measure: an empty dictionary, which no gate lets
    pass.
    """
    if not len(data.val):
        return {}
    words = need_zero_shot(data, "an adapter").among(data.others)
    x = data.val.first_views()
    return compare(
        ranked_logits(run, data, x),
        words.logits(x),
        data.val.labels,
        data.classes,
        head_retention(run, data),
        limits=limits,
    )


def measure_tower(tuned: Tuned, *, limits: GateLimits | None = None) -> dict[str, Any]:
    """Of a tuned image tower; zero-shot is the same tower's from before."""
    val = tuned.images.val
    if not len(val):
        return {}
    words = need_text(tuned.images).among(tuned.images.others)
    after, before = (
        tuned.logits(tower.asking(words), val.inputs) for tower in (tuned.after, tuned.before)
    )
    kept = tower_retention(tuned)
    found = compare(after, before, val.labels, tuned.images.classes, kept, limits=limits)
    sweep = tuned.settings.sweep
    return {**found, "alpha": sweep.chosen.alpha, "sweep": [asdict(s) for s in sweep.scores]}


def compare(
    tuned: Tensor,
    zero: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    kept: Kept,
    *,
    limits: GateLimits | None = None,
) -> dict[str, Any]:
    """tuned, zero: logits [N, C], or [N, C + M] with other categories, at the model's own scale;
    labels: int64 [N].
    """
    scores = [score(logits, labels, classes) for logits in (tuned, zero)]
    measured = None
    if kept.kind != UNTOUCHED and kept.zero_shot is not None and kept.tuned is not None:
        measured = (kept.zero_shot, kept.tuned)
    report = gate(
        tuned,
        zero,
        labels,
        tuned_scores=scores[0],
        zero_scores=scores[1],
        retention=measured,
        retention_unknown=kept.kind == UNKNOWN,
        limits=limits,
    )
    sides = [
        {**asdict(found), "top1_interval": share_interval((logits.argmax(1) == labels).numpy())}
        for found, logits in zip(scores, (tuned, zero), strict=True)
    ]
    return {
        "tuned": sides[0],
        "zero_shot": sides[1],
        "gain": {"lower": report.gain[0], "mean": report.gain[1], "upper": report.gain[2]},
        "other_categories": tuned.shape[1] - len(classes),
        "retention": asdict(kept),
        "gate": _plain(report),
    }


def _plain(report: GateReport) -> dict[str, Any]:
    return {
        "passed": report.passed,
        "failures": list(report.failures),
        "tests": [asdict(test) for test in report.tests],
    }
