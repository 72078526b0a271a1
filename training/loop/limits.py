"""Callbacks that end a run early: after a number of steps, or at a point in time."""

from __future__ import annotations

import time

from training.loop.hooks import Callback, RunView


class StopAfterSteps(Callback):
    """End the run once `steps` steps are done."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, run: RunView) -> None:
        """Stop at the limit."""
        if run.step >= self.steps:
            run.stop(f"{self.steps} steps done")


class StopAtTime(Callback):
    """End the run when `time.monotonic()` passes `deadline` (seconds)."""

    REASON = "the time is up"

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def on_step_end(self, run: RunView) -> None:
        """Stop when the time is up."""
        if time.monotonic() >= self.deadline:
            run.stop(self.REASON)


class StopWhenPerfect(Callback):
    """End the run once training accuracy is 1."""

    def on_epoch_end(self, run: RunView) -> None:
        """Stop at 100 %."""
        if run.metrics.get("train/accuracy") == 1.0:
            run.stop("every training sample is right")
