"""The six steps of the checklist, in order, as one call."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import nn

from training.data.dataset import Dataset
from training.loop import Run
from training.randomness import preserved
from training.recipe import Recipe
from training.steps.report import ChecklistReport
from training.steps.step import Bench, Status, StepResult, seconds
from training.steps.steps import (
    COARSE_SEARCH,
    LR_SEARCH,
    OVERFIT_TINY,
    READ_CURVES,
    REFINE,
    LrPoint,
    Tried,
    coarse_search,
    initial_loss,
    lr_search,
    middle,
    overfit_tiny,
    read_curves,
    refine,
)

# Each step's share of the budget by which it has to be done.
_UNTIL = {OVERFIT_TINY: 0.2, LR_SEARCH: 0.5, COARSE_SEARCH: 0.75, REFINE: 1.0}


def checklist(
    recipe: Recipe,
    data: Dataset,
    *,
    model: nn.Module | None = None,
    budget: str | float = "2min",
    on_step: Callable[[StepResult], None] | None = None,
) -> ChecklistReport:
    """Run the six steps in order.

    model: a network of your own, for the method GivenModel
    budget: "2min", "90s" or seconds; what doesn't fit is left out, and said so
    on_step: called with each result as it comes

    Trains copies: the model, its optimiser and the random states are as they were when this returns
    or raises. A step that fails ends the checklist, since the later ones build on it.

    Raises: RecipeError for a recipe that doesn't fit the data.
    """
    start, length = time.monotonic(), seconds(budget)

    def bench(name: str) -> Bench:
        return Bench(recipe, data, model, start + length * _UNTIL.get(name, 1.0))

    results: list[StepResult] = []
    points: list[LrPoint] = []
    tried: list[Tried] = []
    runs: list[Run] = []
    suggestion = recipe

    def done(result: StepResult) -> bool:
        results.append(result)
        if on_step is not None:
            on_step(result)
        return result.status is Status.FAIL

    def finish() -> ChecklistReport:
        for name in (OVERFIT_TINY, LR_SEARCH, COARSE_SEARCH, REFINE, READ_CURVES)[
            len(results) - 1 :
        ]:
            done(StepResult(name, Status.SKIPPED, None, None, "a step before it failed"))
        return ChecklistReport(
            steps=tuple(results),
            recipe=recipe,
            suggestion=suggestion,
            lr_points=tuple(points),
            tried=tuple(tried),
            histories=(middle(runs).history,) if runs else (),
        )

    with preserved():
        if done(initial_loss(bench("1"))):
            return finish()
        if not recipe.method.trained:
            why = "a closed form has no steps to check"
            for name in (OVERFIT_TINY, LR_SEARCH, COARSE_SEARCH, REFINE):
                done(StepResult(name, Status.SKIPPED, None, None, why))
            runs.append(bench(READ_CURVES).train(recipe))
            done(read_curves(runs))
            return finish()
        if done(overfit_tiny(bench(OVERFIT_TINY))):
            return finish()
        result, points = lr_search(bench(LR_SEARCH))
        if done(result):
            return finish()
        lr = recipe.optimizer.lr if result.measured is None else result.measured
        result, found, tried = coarse_search(bench(COARSE_SEARCH), lr)
        done(result)
        suggestion = recipe.replace(**{"optimizer.lr": lr}) if found is None else found
        result, runs = refine(bench(REFINE), suggestion)
        done(result)
        done(read_curves(runs))
    return finish()
