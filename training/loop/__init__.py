"""The training loop, its hooks and its checkpoints."""

from training.loop.fitting import fit
from training.loop.hooks import (
    Callback,
    ProgressBar,
    RunView,
    StopAfterSteps,
    StopAtTime,
    StopWhenPerfect,
)
from training.loop.pipeline import Pipeline
from training.loop.run import Run

__all__ = [
    "Callback",
    "Pipeline",
    "ProgressBar",
    "Run",
    "RunView",
    "StopAfterSteps",
    "StopAtTime",
    "StopWhenPerfect",
    "fit",
]
