"""Step decay: multiply the rate by gamma at given points.

    shape(t) = gamma^(number of points p with t >= max(1, round(p T)))

ResNet's: gamma = 0.1 at a third and two thirds (epochs 30 and 60 of 90).

Source: He et al. 2016, arXiv:1512.03385, section 3.4; the lecture's "step".
"""

from __future__ import annotations

from dataclasses import dataclass

from training.parts import check_positive, check_share, part
from training.schedules.schedule import Schedule


@part
@dataclass(frozen=True)
class Step(Schedule):
    """gamma: the factor; at: the points, as shares of the run."""

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
