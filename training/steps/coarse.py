"""Step 4: a coarse search over a few settings, for a few epochs each, judged on validation.

Rates of a third, one and three times the best so far, each with two weight decays (none, and 1e-2
for decoupled decay or 1e-4 for L2).

Source: the lecture's checklist, step 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.optimisers import AdamW
from training.recipe import Recipe
from training.steps.step import Bench, Status, StepResult, at_constant_rate

NAME = "4 coarse search"
EPOCHS = 5
_FACTORS = (1.0, 1 / 3, 3.0)


@dataclass(frozen=True)
class Tried:
    """A setting and its validation accuracy and loss."""

    lr: float
    weight_decay: float
    accuracy: float
    loss: float


def coarse_search(bench: Bench, lr: float) -> tuple[StepResult, Recipe | None, list[Tried]]:
    """Try the settings; the recipe with the best one, None where none was tried."""
    if not len(bench.data.val):
        skipped = StepResult(
            NAME, Status.SKIPPED, None, None, "there is no validation split", "Set one aside."
        )
        return skipped, None, []
    decay = 1e-2 if isinstance(bench.recipe.optimizer, AdamW) else 1e-4
    tried: list[Tried] = []
    for weight_decay in (decay, 0.0):
        for factor in _FACTORS:
            setting = _with(bench.recipe, lr * factor, weight_decay)
            run = bench.train(at_constant_rate(setting, epochs=EPOCHS))
            if not run.history.epochs:
                break  # the time was up within its first epoch
            row = run.metrics
            tried.append(Tried(lr * factor, weight_decay, row["val/accuracy"], row["val/loss"]))
            if bench.time_is_up:
                break
        if bench.time_is_up:
            break
    if not tried:
        cut = "the time was up before the first run ended"
        return StepResult(NAME, Status.SKIPPED, None, None, cut, "Give a larger budget."), None, []
    best = max(tried, key=lambda t: (t.accuracy, -t.loss))
    evidence = f"{len(tried)} settings, {EPOCHS} epochs each: " + ", ".join(
        f"lr {t.lr:.2g} decay {t.weight_decay:.2g} -> {t.accuracy:.1%}" for t in tried
    )
    whole = len(tried) == 2 * len(_FACTORS)
    result = StepResult(
        NAME,
        Status.PASS if whole else Status.WARN,
        best.accuracy,
        None,
        evidence,
        "" if whole else "The time was up; a larger budget tries all settings.",
    )
    return result, _with(bench.recipe, best.lr, best.weight_decay), tried


def _with(recipe: Recipe, lr: float, weight_decay: float) -> Recipe:
    return recipe.replace(**{"optimizer.lr": lr, "optimizer.weight_decay": weight_decay})
