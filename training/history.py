"""What a run leaves behind, as plain numbers: all that `diagnose` reads and the report draws."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class History:
    """Grows while a run goes on.

    facts: what was measured before and around the first step (see `loop.facts`)
    loss, lr, gradient: one number a step: the objective with all regularisers, the peak group's
        rate, the gradient's norm before clipping
    epochs: one row an epoch: "train/loss", "train/accuracy", "val/loss", "val/accuracy", measured
        in eval mode without regularisers (the val ones only with a validation split), and "lr"
    health: one table an epoch: layer -> measure -> number (see `loop.facts`)
    epoch_ends: steps done at the end of each epoch
    stopped: why the run ended before its last epoch
    """

    facts: dict[str, Any] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    health: list[dict[str, dict[str, float]]] = field(default_factory=list)
    epoch_ends: list[int] = field(default_factory=list)
    stopped: str | None = None

    def column(self, name: str) -> list[float]:
        """One epoch metric over all epochs that have it."""
        return [row[name] for row in self.epochs if name in row]

    def copy(self) -> History:
        """A copy that shares nothing."""
        return copy.deepcopy(self)

    def to_json(self) -> str:
        """As text; floats survive to the bit, nan and infinities included."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> History:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


def moving_average(values: list[float], *, share: float = 0.05) -> list[float]:
    """Each value's mean with those before it, over a window of `share` of the run (at least 3)."""
    window = max(3, round(share * len(values)))
    return [
        sum(values[max(0, i + 1 - window) : i + 1]) / min(window, i + 1) for i in range(len(values))
    ]
