"""A budget of time, and who gets how much of it."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch import nn

from training.data.dataset import Dataset
from training.errors import RecipeError, with_torchvision
from training.loop import Callback, Run, StopAtTime, fit
from training.recipe import Recipe
from training.schedules import Constant

_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")


def seconds(budget: str | float) -> float:
    """ "2min", "90s", "1.5h" or a number of seconds -> seconds.

    Raises: RecipeError for another form, or nothing at all.
    """
    if not isinstance(budget, str) and budget > 0:
        return float(budget)
    match = _FORM.fullmatch(str(budget).lower())
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
        raise RecipeError(
            f'budget must be like "2min", "90s" or 120, got {budget!r}', param="budget"
        )
    return float(match[1]) * _UNITS[match[2]]


class Status(StrEnum):
    """How a step went."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class StepResult:
    """One step's outcome.

    measured, expected: the number that decides, and what it should be; None where there is none
    evidence: how it came about; advice: what to do, empty where there is nothing
    """

    name: str
    status: Status
    measured: float | None
    expected: float | None
    evidence: str
    advice: str = ""


@dataclass(frozen=True)
class Bench:
    """What steps work with: they train copies, so that nothing of the caller's changes.

    deadline: of this step, in `time.monotonic()` seconds
    """

    recipe: Recipe
    data: Dataset
    model: nn.Module | None
    deadline: float

    @property
    def time_is_up(self) -> bool:
        """Whether the step's share of the budget is spent."""
        return time.monotonic() >= self.deadline

    def train(
        self,
        recipe: Recipe,
        *,
        data: Dataset | None = None,
        callbacks: Sequence[Callback] = (),
        without_dropout: bool = False,
    ) -> Run:
        """A run of its own, cut at the deadline."""
        model = self.model
        if model is not None and without_dropout:
            model = _without_dropout(model)
        return fit(
            recipe,
            self.data if data is None else data,
            model=model,
            callbacks=[*callbacks, StopAtTime(self.deadline)],
        )


def at_constant_rate(recipe: Recipe, *, epochs: int, lr: float | None = None) -> Recipe:
    """The recipe at a constant rate, without early stopping."""
    changed = recipe.replace(schedule=Constant(), stop=None, epochs=epochs)
    return changed if lr is None else changed.replace(**{"optimizer.lr": lr})


def steps_per_epoch(recipe: Recipe, data: Dataset) -> int:
    """Steps that one pass takes."""
    return max(1, -(-len(data.train) // recipe.batch_size))


def _without_dropout(model: nn.Module) -> nn.Module:
    drop_path = with_torchvision("timm.layers").DropPath
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, drop_path):
            module.drop_prob = 0.0
    return plain
