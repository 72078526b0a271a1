"""Step 5: the best setting for 10 to 20 epochs at a constant rate, with several seeds.

How far the seeds lie apart is the noise that any further comparison has to beat.

Source: the lecture's checklist, step 5.
"""

from __future__ import annotations

import statistics

from training.loop import Run
from training.recipe import Recipe
from training.steps.step import Bench, Status, StepResult, at_constant_rate

NAME = "5 refine"
EPOCHS = 15
SEEDS = 3


def refine(bench: Bench, recipe: Recipe) -> tuple[StepResult, list[Run]]:
    """Train with several seeds, as long as the time lasts."""
    runs: list[Run] = []
    for offset in range(SEEDS):
        seeded = at_constant_rate(recipe.replace(seed=recipe.seed + offset), epochs=EPOCHS)
        run = bench.train(seeded)
        if run.history.epochs:
            runs.append(run)
        if bench.time_is_up:
            break
    if not runs:
        cut = "the time was up before the first epoch ended"
        return StepResult(NAME, Status.SKIPPED, None, None, cut, "Give a larger budget."), runs
    side = "val" if len(bench.data.val) else "train"
    found = [run.metrics[f"{side}/accuracy"] for run in runs]
    mean = statistics.fmean(found)
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    epochs = min(len(run.history.epochs) for run in runs)
    evidence = (
        f"{side} accuracy {mean:.1%} +- {spread:.1%} over {len(runs)} seeds, {epochs} epochs: "
        + ", ".join(f"{accuracy:.1%}" for accuracy in found)
    )
    whole = len(runs) == SEEDS and epochs == EPOCHS
    return (
        StepResult(
            NAME,
            Status.PASS if whole else Status.WARN,
            mean,
            None,
            evidence,
            "" if whole else "The time was up; a larger budget runs all seeds to the end.",
        ),
        runs,
    )
