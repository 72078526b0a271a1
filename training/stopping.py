"""Early stopping, as a small state machine over one number an epoch.

    better(v) = v < best - min_delta (mode "min"), v > best + min_delta (mode "max")
    better: best = v, waited = 0;  else: waited += 1, stop when waited = patience
    NaN or infinite: stop at once; it is never the best

Source: Prechelt 1998, "Early Stopping - but when?".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.errors import RecipeError
from training.parts import check_choice, check_not_negative, part

MONITORED = ("val/loss", "val/accuracy", "train/loss", "train/accuracy")


@part
@dataclass(frozen=True)
class Patience:
    """Stop after `patience` epochs without an improvement by more than `min_delta`.

    mode: "min" or "max"; "auto" takes "max" for accuracies. restore_best: end with the weights of
    the best epoch instead of the last.
    """

    monitor: str = "val/loss"
    patience: int = 5
    min_delta: float = 0.0
    mode: str = "auto"
    restore_best: bool = True

    def __post_init__(self) -> None:
        check_choice("monitor", self.monitor, MONITORED)
        check_choice("mode", self.mode, ("auto", "min", "max"))
        check_not_negative("min_delta", self.min_delta)
        if self.patience < 1:
            raise RecipeError(f"patience must be at least 1, got {self.patience}", param="patience")

    @property
    def larger_is_better(self) -> bool:
        """Whether the monitored number should rise."""
        if self.mode == "auto":
            return self.monitor.endswith("accuracy")
        return self.mode == "max"


@dataclass(frozen=True)
class StoppingState:
    """Where the machine stands: `best` (None at first), its epoch, epochs `waited` since."""

    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    stop: str | None = None  # the reason, in words

    def after(self, rule: Patience, value: float, epoch: int) -> StoppingState:
        """The state after one more epoch's number."""
        if not math.isfinite(value):
            broken = f"{rule.monitor} became {value} in epoch {epoch}"
            return StoppingState(self.best, self.best_epoch, self.waited + 1, broken)
        if self.best is None or self._better(rule, value):
            return StoppingState(value, epoch, 0)
        waited = self.waited + 1
        reason: str | None = None
        if waited >= rule.patience:
            reason = f"{rule.monitor} has not improved for {waited} epochs (best: {self.best:.4g})"
        return StoppingState(self.best, self.best_epoch, waited, reason)

    def _better(self, rule: Patience, value: float) -> bool:
        assert self.best is not None
        if rule.larger_is_better:
            return value > self.best + rule.min_delta
        return value < self.best - rule.min_delta
