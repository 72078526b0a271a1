"""Progress: a bar on a terminal, one plain line an epoch in a log."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.loop.hooks import Callback, RunView


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
