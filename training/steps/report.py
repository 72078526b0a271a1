"""What the checklist says: a table to print, a picture, and a suggestion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.history import History
from training.recipe import Recipe
from training.steps.step import Status, StepResult
from training.steps.steps import LrPoint, Tried

_MARKS = {Status.PASS: "ok", Status.WARN: "!", Status.FAIL: "FAIL", Status.SKIPPED: "-"}


@dataclass(frozen=True, eq=False)
class ChecklistReport:
    """The six steps in order.

    recipe: as it was given; suggestion: with the settings that did best (the same, where nothing
    was found). Nothing is applied: train with it or don't.
    """

    steps: tuple[StepResult, ...]
    recipe: Recipe
    suggestion: Recipe
    lr_points: tuple[LrPoint, ...] = ()
    tried: tuple[Tried, ...] = ()
    histories: tuple[History, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return all(step.status is not Status.FAIL for step in self.steps)

    def step(self, number: int) -> StepResult:
        """Step 1 to 6."""
        return self.steps[number - 1]

    def __str__(self) -> str:
        lines = [f"{'step':26} {'status':7} {'measured':>10} {'expected':>10}"]
        for step in self.steps:
            measured, expected = _number(step.measured), _number(step.expected)
            lines.append(f"{step.name:26} {_MARKS[step.status]:7} {measured:>10} {expected:>10}")
            lines.append(f"    {step.evidence}")
            if step.advice:
                lines.append(f"    -> {step.advice}")
        changes = self.changes()
        lines.append("suggestion: " + (", ".join(changes) if changes else "the recipe as it is"))
        return "\n".join(lines)

    def changes(self) -> list[str]:
        """What the suggestion changes, in words."""
        old, new = self.recipe.optimizer, self.suggestion.optimizer
        return [
            f"optimizer.{name} {getattr(old, name):.3g} -> {getattr(new, name):.3g}"
            for name in ("lr", "weight_decay")
            if getattr(old, name) != getattr(new, name)
        ]

    def plot(self, path: str | Path) -> Path:
        """Write the checklist as a picture (the ending gives the format: png, svg, pdf).

        Raises: MissingExtraError without matplotlib.
        """
        from training.report import plot_checklist

        return plot_checklist(self, path)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
