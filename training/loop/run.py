"""What `fit` returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from training.diagnosis import Diagnosis
from training.history import History
from training.loop.facts import logits_of
from training.loop.pipeline import Pipeline
from training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Run:
    """A finished (or stopped) run.

    network: preprocessing and network, in eval mode, with the weights that the recipe keeps
    history: its course; diagnosis: what the course says
    metrics: of the kept weights: "train/loss", "train/accuracy", "val/loss", "val/accuracy"
    classes: names, in the order of the logits
    best_epoch: whose weights are kept (from 0); the last where nothing is restored
    resumed_at: the step that the run was resumed at, None for a fresh one
    """

    recipe: Recipe
    network: Pipeline
    history: History
    diagnosis: Diagnosis
    metrics: dict[str, float]
    classes: tuple[str, ...]
    best_epoch: int
    resumed_at: int | None = None

    def logits(self, inputs: Tensor) -> Tensor:
        """inputs [N, ...] as in the data -> logits [N, C], without those of other categories."""
        return logits_of(self.network, inputs)[:, : len(self.classes)]

    def predict(self, inputs: Tensor) -> Tensor:
        """inputs [N, ...] as in the data -> class numbers int64 [N]."""
        return self.logits(inputs).argmax(dim=1)

    def report(self, path: str | Path) -> Path:
        """Write the run's report as one self-contained HTML file.

        Raises: MissingExtraError without matplotlib.
        """
        from training.report import write_report

        return write_report(path, run=self)
