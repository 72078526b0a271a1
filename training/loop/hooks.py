"""Hooks: code that watches a run. It may read, log and stop; it may not change anything.

Changes are caught, not trusted: around each call the network's weights, gradients, buffers, modes
and the data are compared (version counters, and a sum over the bits, which also sees writes through
`.data`), and the random states are put back. A hook that changed something raises HookError, by its
name.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from training.data.dataset import Dataset
from training.errors import HookError
from training.history import History
from training.randomness import preserved
from training.recipe import Recipe

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class RunView:
    """What a hook sees.

    recipe, data, network: of the run, to read. epoch: from 0; step: steps done; epochs, steps: in
    all. stage: which training this is, where one call makes several ("choosing 1 of 6"); else empty
    """

    recipe: Recipe
    data: Dataset
    network: nn.Module
    epochs: int
    steps: int
    _history: History
    epoch: int = 0
    step: int = 0
    stop_reason: str | None = None
    stage: str = ""

    @property
    def history(self) -> History:
        """A copy of the history so far."""
        return self._history.copy()

    @property
    def metrics(self) -> dict[str, float]:
        """The last finished epoch's row; empty before the first."""
        return dict(self._history.epochs[-1]) if self._history.epochs else {}

    @property
    def loss(self) -> float:
        """The last step's objective; nan before the first."""
        return self._history.loss[-1] if self._history.loss else float("nan")

    @property
    def lr(self) -> float:
        """The last step's rate; nan before the first."""
        return self._history.lr[-1] if self._history.lr else float("nan")

    def stop(self, reason: str) -> None:
        """End the run after this step; it can be resumed."""
        self.stop_reason = reason


class Callback:
    """Base of all hooks: override what you need."""

    def on_fit_start(self, run: RunView) -> None:
        """Before the first step (or the first after a resume)."""

    def on_epoch_start(self, run: RunView) -> None:
        """Before an epoch's first step."""

    def after_backward(self, run: RunView) -> None:
        """Gradients are there (unscaled, not yet clipped); the step hasn't been taken."""

    def on_step_end(self, run: RunView) -> None:
        """After a step."""

    def on_epoch_end(self, run: RunView) -> None:
        """After an epoch's evaluation; `run.metrics` is its row."""

    def on_checkpoint(self, run: RunView) -> None:
        """After a checkpoint has been written."""

    def on_fit_end(self, run: RunView) -> None:
        """After the last step, whatever the reason."""


class Hooks:
    """All callbacks of a run, called in order and watched."""

    def __init__(self, callbacks: Sequence[Callback], view: RunView) -> None:
        self._callbacks = callbacks
        self.view = view

    def call(self, name: str) -> None:
        """Call one hook on every callback.

        Raises: HookError if one of them changed what it may only read.
        """
        for callback in self._callbacks:
            hook: Callable[[RunView], None] = getattr(callback, name)
            if getattr(type(callback), name, None) is getattr(Callback, name):
                continue  # not overridden: nothing to watch
            before = _imprint(self.view)
            with preserved():
                hook(self.view)
            if _imprint(self.view) != before:
                raise HookError(
                    f"the hook {type(callback).__name__}.{name} changed the run; hooks may read, "
                    "log "
                    "and stop, so take the change out (or make it a part of the recipe)"
                )


def _imprint(view: RunView) -> list[Any]:
    network, data = view.network, view.data
    marks: list[Any] = [module.training for module in network.modules()]
    for parameter in network.parameters():
        marks += [parameter.requires_grad, *_mark(parameter)]
        marks += _mark(parameter.grad) if parameter.grad is not None else [None]
    for buffer in network.buffers():
        marks += _mark(buffer)
    for tensor in (data.train.inputs, data.train.labels, data.val.inputs, data.val.labels):
        marks.append(tensor._version)
    return marks


def _mark(tensor: Tensor) -> list[int]:
    bits = tensor.detach().contiguous().view(_BITS[tensor.element_size()])
    return [tensor._version, int(bits.sum(dtype=torch.int64))]


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


class ProgressBar(Callback):
    """Shows a run as it goes, on stderr unless told otherwise."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._bar: Progress | None = None

    def on_fit_start(self, run: RunView) -> None:
        """Open the bar, if there is a terminal to draw it on."""
        console = Console(file=self._stream)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=console,
            )
            self._bar.add_task(
                "",
                total=run.steps,
                completed=run.step,
                epoch=run.epoch + 1,
                epochs=run.epochs,
                numbers="",
            )
            self._bar.start()

    def on_step_end(self, run: RunView) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=run.step, epoch=run.epoch + 1)

    def on_epoch_end(self, run: RunView) -> None:
        """Show the epoch's numbers."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], numbers=_short(run.metrics))
        else:
            print(
                f"epoch {run.epoch + 1}/{run.epochs}  {_numbers(run.metrics)}",
                file=self._stream,
                flush=True,
            )

    def on_fit_end(self, run: RunView) -> None:
        """Close the bar; say why, if the run ended early."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if run.stop_reason:
            print(f"stopped: {run.stop_reason}", file=self._stream, flush=True)


def _short(row: dict[str, float]) -> str:
    sides = [
        f"{side} {row[f'{side}/loss']:.3f} {row[f'{side}/accuracy']:.0%}"
        for side in ("train", "val")
        if f"{side}/loss" in row
    ]
    return "  ".join(sides)


def _numbers(row: dict[str, float]) -> str:
    return "  ".join(
        f"{name} {value:.3g}" if name == "lr" else f"{name} {value:.4f}"
        for name, value in row.items()
    )
