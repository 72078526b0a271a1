"""Step 3: which learning rate brings the loss down?

Independent runs of about 100 steps on a logarithmic grid (half decades) around the recipe's rate,
at a constant rate, with the recipe's regularisers on; judged by the plain training loss afterwards.
A best one at the grid's edge isn't a best one yet.

A range of 1e-1..1e-4 fits heads; full fine-tuning of CLIP wants 1e-5..3e-5. (A rising rate within
one run is quicker, but its later points inherit the earlier ones' progress or damage.)

Source: the lecture's checklist, step 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.loop import StopAfterSteps
from training.steps.step import Bench, Status, StepResult, at_constant_rate, steps_per_epoch

NAME = "3 learning-rate search"
STEPS = 100
HALF_DECADES = 4  # to each side


@dataclass(frozen=True)
class LrPoint:
    """A rate, and the plain training loss after about 100 steps (inf where it diverged)."""

    lr: float
    loss: float


def lr_search(bench: Bench) -> tuple[StepResult, list[LrPoint]]:
    """Try the grid from its middle outwards, as long as the time lasts; points in rising order."""
    epochs = math.ceil(STEPS / steps_per_epoch(bench.recipe, bench.data))
    around = sorted(range(-HALF_DECADES, HALF_DECADES + 1), key=lambda k: (abs(k), k))
    points: list[LrPoint] = []
    initial = math.inf
    for k in around:
        lr = bench.recipe.optimizer.lr * 10 ** (k / 2)
        recipe = at_constant_rate(bench.recipe, epochs=epochs, lr=lr)
        run = bench.train(recipe, callbacks=[StopAfterSteps(STEPS)])
        initial = float(run.history.facts["initial_loss"])
        if bench.time_is_up and len(run.history.loss) < STEPS:
            break  # a run that was cut can't be compared
        loss = run.metrics["train/loss"]
        points.append(LrPoint(lr, loss if math.isfinite(loss) else math.inf))
    points.sort(key=lambda point: point.lr)
    if not points:
        cut = "the time was up before the first run ended"
        return StepResult(NAME, Status.SKIPPED, None, None, cut, "Give a larger budget."), points
    best = min(points, key=lambda point: point.loss)
    evidence = f"loss after {STEPS} steps, from {initial:.3g}: " + ", ".join(
        f"{point.lr:.2g} -> {point.loss:.3g}" for point in points
    )
    if not best.loss < initial:
        return (
            StepResult(
                NAME,
                Status.FAIL,
                best.lr,
                None,
                evidence,
                "No rate brings the loss down: go back to steps 1 and 2.",
            ),
            points,
        )
    if best in (points[0], points[-1]):
        return (
            StepResult(
                NAME,
                Status.WARN,
                best.lr,
                None,
                evidence,
                f"The best rate, {best.lr:.2g}, is at the grid's edge: search again around it.",
            ),
            points,
        )
    return StepResult(NAME, Status.PASS, best.lr, None, evidence), points
