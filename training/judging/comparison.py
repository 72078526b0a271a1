"""metrics.json: zero-shot and tuned on the same held-out images, and the gate's verdict.

Where there is a validation split it judges. Else every training image answers out of fold: the
same settings, learnt from the other folds. The adapter itself has learnt from all images, and is a
little better than that, the more so the fewer they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from training.data.dataset import Dataset
from training.judging.gate import ByImage, GateLimits, GateReport, gate, share_interval
from training.judging.leaderboard import Leaderboard, out_of_fold
from training.judging.metrics import ranked_logits, score
from training.judging.retention import UNKNOWN, UNTOUCHED, Kept, head_retention, tower_retention
from training.loop import Run
from training.networks import need_zero_shot
from training.tower import Tuned
from training.tower.network import need_text

HELD_OUT, OUT_OF_FOLD = "held out", "out of fold"  # where the answers come from


def measure(
    run: Run,
    data: Dataset,
    board: Leaderboard | None = None,
    *,
    limits: GateLimits | None = None,
) -> dict[str, Any]:
    """Of a head over features, among the other categories: on the validation split, or out of
    fold where there is none.

    board: what chose the head, if one did; it stands in the result as "leaderboard"

    With one image a class and no validation split nothing can be measured: there is no "gate" in
    the result then, which no promotion lets pass.
    """
    shown = {} if board is None else {"leaderboard": board.plain()}
    if len(data.val):
        return {**_held_out(run, data, limits), **shown}
    if data.distinct_shots < 2:
        return shown
    answers = board.answers if board is not None else out_of_fold(run.recipe, data)
    assert answers is not None
    found = compare(
        answers.tuned,
        answers.zero,
        answers.labels,
        data.classes,
        head_retention(run, data),
        image=answers.image,
        limits=limits,
    )
    return {**found, **shown}


def _held_out(run: Run, data: Dataset, limits: GateLimits | None) -> dict[str, Any]:
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
    image: Tensor | None = None,
    limits: GateLimits | None = None,
) -> dict[str, Any]:
    """tuned, zero: logits [N, C], or [N, C + M] with other categories; labels int64
    [N]; image: which image each row answers for, where they are out of fold.
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
        image=image,
        retention=measured,
        retention_unknown=kept.kind == UNKNOWN,
        limits=limits,
    )
    images = ByImage(len(labels), None if image is None else image.numpy())
    sides = [
        {
            **asdict(found),
            "n": images.count,
            "top1_interval": share_interval(images.mean((logits.argmax(1) == labels).numpy())),
        }
        for found, logits in zip(scores, (tuned, zero), strict=True)
    ]
    return {
        "measured": HELD_OUT if image is None else OUT_OF_FOLD,
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
