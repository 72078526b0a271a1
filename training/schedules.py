"""Learning-rate schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from training.parts import check_choice, check_positive, check_share, part

__all__ = [
    "Constant",
    "Cosine",
    "InverseSqrt",
    "Linear",
    "Schedule",
    "Step",
]


@dataclass(frozen=True)
class Schedule:
    """A factor on the peak rate as a formula of time t, in steps or epochs, for torch's LambdaLR.

        t < W:   lr(t) = lr * (t + 1) / W             linear warmup over W = round(warmup * T) units
        t >= W:  lr(t) = lr * shape(t - W, T - W)     from the peak
        t >= T:  lr(t) = lr(T)                        training takes t = 0 .. T - 1

    torch's own CosineAnnealingLR climbs again after T, and adds one floor to groups of different
    rates; chained with SequentialLR its seams shift by one. A formula under LambdaLR does neither,
    gives each group its share, and resumes from one number. (Tests hold the shapes against torch's
    classes where these apply.)

    warmup: the share of the run spent rising linearly; per: "step" or "epoch".

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


@part
@dataclass(frozen=True)
class Constant(Schedule):
    """The peak rate throughout (after the warmup).

        shape(t) = 1

    Source: Goodfellow et al. 2016, "Deep Learning", section 8.3.1. The checklist's steps 3 to 5 use
    it.
    """

    def shape(self, t: int, total: int) -> float:
        """1."""
        return 1.0


@part
@dataclass(frozen=True)
class Step(Schedule):
    """Step decay: multiply the rate by gamma at given points.

        shape(t) = gamma^(number of points p with t >= max(1, round(p T)))

    ResNet's: gamma = 0.1 at a third and two thirds (epochs 30 and 60 of 90).

    gamma: the factor; at: the points, as shares of the run.

    Source: He et al. 2016, arXiv:1512.03385, section 3.4.
    """

    gamma: float = 0.1
    at: tuple[float, ...] = (1 / 3, 2 / 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("gamma", self.gamma)
        for point in self.at:
            check_share("at", point)

    def shape(self, t: int, total: int) -> float:
        """Gamma to the number of points passed."""
        return float(self.gamma ** sum(t >= max(1, round(point * total)) for point in self.at))


@part
@dataclass(frozen=True)
class Linear(Schedule):
    """Linear decay.

        shape(t) = 1 - (1 - floor) * t / T

    floor: the share of the peak rate that is left at the end.

    Source: Devlin et al. 2019 (BERT), arXiv:1810.04805, appendix A.2.
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("floor", self.floor)

    def shape(self, t: int, total: int) -> float:
        """A line from 1 to the floor."""
        return 1 - (1 - self.floor) * t / total


@part
@dataclass(frozen=True)
class Cosine(Schedule):
    """Cosine decay.

        shape(t) = floor + (1 - floor) * (1 + cos(pi t / T)) / 2

    floor: the share of the peak rate that is left at the end.

    Source: Loshchilov & Hutter 2017 (SGDR), arXiv:1608.03983, eq. 5, without restarts.
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("floor", self.floor)

    def shape(self, t: int, total: int) -> float:
        """Half a cosine from 1 to the floor."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * t / total)) / 2


@part
@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """Inverse square root decay.

        shape(t) = 1 / sqrt(1 + t / scale)

    The usual lr / sqrt(t) divides by zero at t = 0: it needs t >= 1. Counting from 1, with scale =
    1, is the same. A larger scale decays later; `scale` = the warmup's length gives the
    Transformer's.

    scale: the units after which the rate has fallen to 1 / sqrt(2).

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 3.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("scale", self.scale)

    def shape(self, t: int, total: int) -> float:
        """1 / sqrt(1 + t / scale)."""
        return 1 / math.sqrt(1 + t / self.scale)
