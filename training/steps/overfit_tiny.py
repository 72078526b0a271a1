"""Step 2: can the network learn a handful of samples by heart?

With every regulariser off, 100 % on a tiny sample is a must; if not, something is broken, and no
search will mend it. Three rates are tried, since the one in the recipe may be off.

Source: the lecture's checklist, step 2.
"""

from __future__ import annotations

import torch

from training.data.dataset import Dataset
from training.diagnosis import Verdict
from training.loop import StopWhenPerfect
from training.steps.step import Bench, Status, StepResult, at_constant_rate

NAME = "2 overfit a tiny sample"
SAMPLE = 20
EPOCHS = 300


def overfit_tiny(bench: Bench) -> StepResult:
    """Train on a tiny sample until every answer is right."""
    tiny = tiny_sample(bench.data)
    plain = bench.recipe.plain().replace(batch_size=len(tiny.train), balance="none")
    best, tried = 0.0, []
    for factor in (1.0, 10.0, 0.1):
        lr = plain.optimizer.lr * factor
        recipe = at_constant_rate(plain, epochs=EPOCHS, lr=lr)
        run = bench.train(recipe, data=tiny, callbacks=[StopWhenPerfect()], without_dropout=True)
        accuracy = run.metrics["train/accuracy"]
        tried.append(f"{accuracy:.0%} after {len(run.history.loss)} steps at {lr:.2g}")
        best = max(best, accuracy)
        if accuracy == 1.0 or bench.time_is_up:
            break
    evidence = f"{len(tiny.train)} samples, regularisers off: {'; '.join(tried)}"
    if best == 1.0:
        return StepResult(NAME, Status.PASS, best, 1.0, evidence)
    if bench.time_is_up and run.diagnosis.verdict is not Verdict.DIVERGED:
        return StepResult(
            NAME, Status.WARN, best, 1.0, f"{evidence}; the time was up", "Give a larger budget."
        )
    return StepResult(
        NAME,
        Status.FAIL,
        best,
        1.0,
        evidence,
        "The network can't memorise a handful of samples: look for a bug in the loss, the labels "
        "or "
        "the graph before anything else; then for a network that is too small.",
    )


def tiny_sample(data: Dataset) -> Dataset:
    """About 20 training samples, evenly from all classes (one of each, if there are more classes);
    one view of each.
    """
    each = max(1, SAMPLE // len(data.classes))
    rows = [
        int(row)
        for label in range(len(data.classes))
        for row in torch.nonzero(data.train.labels == label).flatten()[:each]
    ]
    tiny = data.only_train(rows)
    if tiny.train.inputs.ndim != 3:
        return tiny
    plain = type(tiny.train)(tiny.train.inputs[:, :1], tiny.train.labels)
    return Dataset(plain, data.val, data.classes, data.zero_shot)
