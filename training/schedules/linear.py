"""Linear decay.

    shape(t) = 1 - (1 - floor) * t / T

Source: the lecture's "linear"; Devlin et al. 2019 (BERT).
"""

from __future__ import annotations

from dataclasses import dataclass

from training.parts import check_share, part
from training.schedules.schedule import Schedule


@part
@dataclass(frozen=True)
class Linear(Schedule):
    """floor: the share of the peak rate that is left at the end."""

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("floor", self.floor)

    def shape(self, t: int, total: int) -> float:
        """A line from 1 to the floor."""
        return 1 - (1 - self.floor) * t / total
