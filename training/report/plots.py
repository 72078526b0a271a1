"""Pictures with matplotlib, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from training.errors import require
from training.history import History, moving_average

_TRAIN, _VAL = "#1f77b4", "#d62728"
_NAMED_LAYERS = 16  # more than these are told apart by colour, first and last by name


class DrawnChecklist(Protocol):
    """What a picture needs of `training.ChecklistReport`."""

    @property
    def steps(self) -> Sequence[Any]:
        """With name, status and measured."""
        ...

    @property
    def lr_points(self) -> Sequence[Any]:
        """With lr and loss."""
        ...

    @property
    def histories(self) -> Sequence[History]:
        """Of the refining run, if there is one."""
        ...


def new_figure(rows: int, columns: int, *, height: float = 3.2) -> tuple[Any, list[Any]]:
    """A figure that belongs to no window, and its axes in reading order."""
    figure_module = require("matplotlib.figure", needed_for="plots and reports")
    figure = figure_module.Figure(figsize=(5.2 * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def to_svg(figure: Any) -> str:
    """A figure as an <svg> element, without a date, so that the same data gives the same text."""
    require("matplotlib", needed_for="plots and reports").rcParams["svg.hashsalt"] = "clipdex"
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def draw_loss(axes: Any, history: History) -> None:
    """Raw and averaged loss of the steps; training and validation loss of the epochs."""
    steps = range(1, len(history.loss) + 1)
    axes.plot(steps, history.loss, color=_TRAIN, alpha=0.25, linewidth=0.8, label="step, raw")
    if history.loss:
        average = moving_average(history.loss)
        axes.plot(steps, average, color=_TRAIN, linewidth=1.2, label="step, moving average")
    _draw_epochs(axes, history, "loss")
    axes.set(xlabel="step", ylabel="loss", title="loss")
    _legend(axes)


def draw_accuracy(axes: Any, history: History) -> None:
    """Training and validation accuracy of the epochs."""
    _draw_epochs(axes, history, "accuracy")
    axes.set(xlabel="step", ylabel="accuracy", title="accuracy", ylim=(0, 1.02))
    _legend(axes)


def draw_rate(axes: Any, history: History) -> None:
    """The learning rate of each step."""
    axes.plot(range(1, len(history.lr) + 1), history.lr, color="#2ca02c")
    axes.set(xlabel="step", ylabel="learning rate", title="learning rate")


def draw_health(axes: Any, history: History, measure: str, title: str) -> None:
    """One measure of every layer over the epochs."""
    layers = [
        name
        for name, row in (history.health[-1] if history.health else {}).items()
        if measure in row
    ]
    many = len(layers) > _NAMED_LAYERS
    colours = require("matplotlib", needed_for="plots and reports").colormaps["viridis"]
    for at, layer in enumerate(layers):
        values = [table.get(layer, {}).get(measure, float("nan")) for table in history.health]
        # A legend of a whole tower leaves no room for the curves: depth is then told by colour.
        label = layer if not many or at in (0, len(layers) - 1) else "_hidden"
        colour = colours(at / (len(layers) - 1)) if many else None
        axes.plot(range(1, len(values) + 1), values, marker=".", label=label, color=colour)
    axes.set(xlabel="epoch", title=title)
    if measure == "gradient" and layers:
        axes.set_yscale("symlog", linthresh=1e-6)
    if layers:
        axes.legend(fontsize=6, ncols=2)
    else:
        axes.text(0.5, 0.5, "no such layer", ha="center", transform=axes.transAxes, color="grey")


def plot_history(history: History) -> Any:
    """Loss, accuracy and rate, side by side."""
    figure, axes = new_figure(1, 3)
    draw_loss(axes[0], history)
    draw_accuracy(axes[1], history)
    draw_rate(axes[2], history)
    return figure


def plot_health(history: History) -> Any:
    """Dead, saturated, mean activation and gradient norm of every layer."""
    figure, axes = new_figure(2, 2)
    draw_health(axes[0], history, "dead", "share of dead units")
    draw_health(axes[1], history, "saturated", "share of saturated outputs")
    draw_health(axes[2], history, "mean", "mean activation")
    draw_health(axes[3], history, "gradient", "gradient norm")
    return figure


def checklist_figure(report: DrawnChecklist) -> Any:
    """The steps as a table, the rates that were tried, and the curves of the refining run."""
    figure, axes = new_figure(2, 2)
    table, rates, loss, accuracy = axes
    table.axis("off")
    colours = {"pass": "#d5f0d5", "warn": "#fff1c4", "fail": "#f7c9c9", "skipped": "#eeeeee"}
    rows = [
        [step.name, str(step.status), "" if step.measured is None else f"{step.measured:.4g}"]
        for step in report.steps
    ]
    cells = table.table(
        rows, colLabels=["step", "status", "measured"], loc="center", cellLoc="left"
    )
    cells.scale(1, 1.5)
    for i, step in enumerate(report.steps, start=1):
        cells[i, 1].set_facecolor(colours[step.status])
    table.set_title("checklist")
    finite = [point for point in report.lr_points if point.loss != float("inf")]
    rates.plot([p.lr for p in finite], [p.loss for p in finite], marker="o")
    rates.set(xscale="log", xlabel="learning rate", ylabel="loss after 100 steps", title="step 3")
    for history in report.histories[:1]:
        draw_loss(loss, history)
        draw_accuracy(accuracy, history)
    return figure


def plot_checklist(report: DrawnChecklist, path: str | Path) -> Path:
    """Write `checklist_figure` to a file; its ending gives the format."""
    target = Path(path)
    checklist_figure(report).savefig(target, dpi=120)
    return target


def _draw_epochs(axes: Any, history: History, what: str) -> None:
    ends = history.epoch_ends or list(range(1, len(history.epochs) + 1))
    for side, colour in (("train", _TRAIN), ("val", _VAL)):
        values = history.column(f"{side}/{what}")
        if values:
            axes.plot(ends[: len(values)], values, color=colour, marker="o", ms=3, label=side)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
