"""What a schedule is, and how it drives torch's LambdaLR.

A schedule is a formula for the factor on the peak rate at time t, in steps or epochs:

    t < W:   lr(t) = lr * (t + 1) / W             linear warmup over W = round(warmup * T) units
    t >= W:  lr(t) = lr * shape(t - W, T - W)     from the peak
    t >= T:  lr(t) = lr(T)                        training takes t = 0 .. T - 1

torch's own CosineAnnealingLR climbs again after T, and adds one floor to groups of different rates;
chained with SequentialLR its seams shift by one. A formula under LambdaLR does neither, gives each
group its share, and resumes from one number. (Tests hold the shapes against torch's classes where
these apply.)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from training.parts import check_choice, check_share


@dataclass(frozen=True)
class Schedule:
    """warmup: the share of the run spent rising linearly; per: "step" or "epoch".

    Subclasses define `shape`.
    """

    warmup: float = 0.0
    per: str = "step"

    def __post_init__(self) -> None:
        check_share("warmup", self.warmup, upper_open=True)
        check_choice("per", self.per, ("step", "epoch"))

    def shape(self, t: int, total: int) -> float:
        """The factor at unit t of `total` after the warmup; 0 <= t <= total."""
        raise NotImplementedError

    def warmup_units(self, total: int) -> int:
        """W: how many of the run's units are warmup; at least 1 if there is any."""
        return max(1, round(self.warmup * total)) if self.warmup else 0

    def factor(self, t: int, total: int) -> float:
        """The factor on the peak rate at unit t of a run of `total` units; t >= total holds."""
        warm = self.warmup_units(total)
        if t < warm:
            return (t + 1) / warm
        rest = max(1, total - warm)
        return self.shape(min(t - warm, rest), rest)

    def scheduler(self, optimizer: Optimizer, *, epochs: int, steps_per_epoch: int) -> LambdaLR:
        """A torch scheduler; call its `step()` after every optimiser step."""
        if self.per == "epoch":
            return LambdaLR(optimizer, lambda step: self.factor(step // steps_per_epoch, epochs))
        return LambdaLR(optimizer, lambda step: self.factor(step, epochs * steps_per_epoch))
