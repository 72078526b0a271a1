"""What `benchmarks.strategy_cifar` measured, as text for a terminal and as a page of docs/."""

from __future__ import annotations

import dataclasses
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.strategy_cells import Result
from benchmarks.strategy_recipes import Contest
from training import History, Recipe
from training.report import plot_history

WIDTH = 900  # pixels of a copied picture
COMMAND = "python -m benchmarks.strategy_cifar --data DATA --write docs/strategy/cifar10.md"


@dataclass(frozen=True)
class Measured:
    """One contest's results.

    rows: (technique, result), the first being the default; missing: techniques not measured yet;
    sizes: images that train, that judge, and of the table; zero_shot: share of right answers
    without any training, where there is one
    """

    contest: Contest
    checked: Result
    searched: Result
    tuned: Result
    rows: list[tuple[str, Result]]
    missing: tuple[str, ...]
    sizes: tuple[int, int, int]
    zero_shot: float | None

    @property
    def default(self) -> Result:
        """The default's result."""
        return self.rows[0][1]

    @property
    def all(self) -> list[Result]:
        """Every result."""
        return [self.checked, self.searched, self.tuned, *(result for _, result in self.rows)]


def wins(measured: Measured) -> bool:
    """Whether the tuned recipe beats the default on average."""
    tuned, default = measured.tuned["accuracy"], measured.default["accuracy"]
    return statistics.fmean(tuned) > statistics.fmean(default)


def summary(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.1%} +- {spread:.1%}"


def show(measured: Measured) -> str:
    """Everything as plain text."""
    train, judge, outside = measured.sizes
    lines = [f"== {measured.contest.title}: {train} train, {judge} judge, {outside} for the table"]
    if measured.zero_shot is not None:
        lines.append(f"zero-shot, without training: {measured.zero_shot:.1%}")
    lines += [measured.checked["text"], _search_line(measured.searched)]
    lines += [f"{name:8} {summary(result['accuracy'])}" for name, result in _sides(measured)]
    lines.append(f"tuned {'beats' if wins(measured) else 'does NOT beat'} default\n")
    width = max(len(label) for label, *_ in _ablation(measured))
    lines += [
        f"{label:{width}}  {accuracy:16} {gain}" for label, accuracy, gain, _ in _ablation(measured)
    ]
    if measured.missing:
        lines.append(f"not measured yet: {', '.join(measured.missing)}")
    return "\n".join(lines) + "\n"


def page(measured: Sequence[Measured], path: Path, folder: Path) -> None:
    """Write the page, and its pictures beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for each in measured:
        for picture in ("checklist", "importances"):
            name = f"{each.contest.name}-{picture}.png"
            with Image.open(folder / name) as drawn:
                drawn.thumbnail((WIDTH, WIDTH))
                drawn.convert("RGB").quantize(64).save(path.parent / name, optimize=True)
        curves = plot_history(History.from_json(each.tuned["history"]))
        curves.savefig(path.parent / f"{each.contest.name}-curves.png", dpi=70)
        ablation_picture(each, path.parent / f"{each.contest.name}-techniques.png")
    body = "\n".join([_head(measured), *(_section(each) for each in measured)])
    path.write_text(body, encoding="utf-8")


def ablation_picture(measured: Measured, path: Path) -> None:
    """Each technique's mean and its seeds, against the default."""
    from matplotlib.figure import Figure

    rows = [(label, [*result["accuracy"]]) for label, result in measured.rows]
    rows.append(("tuned recipe", [*measured.tuned["accuracy"]]))
    rows.reverse()
    figure = Figure(figsize=(7.5, 0.6 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for height, (label, values) in enumerate(rows):
        colour = {"default": "#444444", "tuned recipe": "#2ca02c"}.get(label, "#1f77b4")
        axes.plot(values, [height] * len(values), "o", ms=3, alpha=0.5, color=colour)
        axes.plot(statistics.fmean(values), height, "|", ms=11, mew=2.5, color=colour)
    axes.axvline(statistics.fmean(measured.default["accuracy"]), color="#444444", lw=0.6, ls=":")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("validation accuracy: seeds, and their mean", fontsize=8)
    figure.savefig(path, dpi=90)


def _sides(measured: Measured) -> list[tuple[str, Result]]:
    return [("default", measured.default), ("tuned", measured.tuned)]


def _search_line(searched: Result) -> str:
    states = [state for _, _, state, _ in searched["trials"]]
    return (
        f"search: {len(states)} trials, {states.count('pruned')} pruned; "
        f"best {searched['value']:.1%} on the images that judge"
    )


def _ablation(measured: Measured) -> list[tuple[str, str, str, Result]]:
    """(technique, accuracy, points against the default, result)."""
    base = statistics.fmean(measured.default["accuracy"])
    found = [(label, result["accuracy"], result) for label, result in measured.rows]
    default, seeds = measured.default, len(measured.default["accuracy"])
    found.append((f"ensemble of {seeds} (mean)", [default["mean"]], default))
    found.append((f"ensemble of {seeds} (vote)", [default["vote"]], default))
    if default["crops"]:
        found.append(("ten crops when testing", default["crops"], default))
    return [
        (
            label,
            summary(values) if len(values) > 1 else f"{values[0]:.1%}",
            "" if label == "default" else f"{100 * (statistics.fmean(values) - base):+.1f}",
            result,
        )
        for label, values, result in found
    ]


def _head(measured: Sequence[Measured]) -> str:
    results = [result for each in measured for result in each.all]
    dates = sorted({result["date"] for result in results})
    minutes = sum(result["seconds"] for result in results) / 60
    threads = ", ".join(str(n) for n in sorted({result["threads"] for result in results}))
    train, judge, outside = measured[0].sizes
    error = 100 * (0.25 / outside) ** 0.5
    return "\n".join(
        [
            "# What the training strategy adds: a small CIFAR-10",
            "",
            f"    {COMMAND}",
            "",
            f"{' to '.join([dates[0], dates[-1]] if len(dates) > 1 else dates)}; {minutes:.0f} "
            f"minutes of work on {platform.machine()} with {threads} thread(s), torch "
            f"{torch.__version__}, with other processes at work beside it. This page is written by "
            "the program.",
            "",
            "**Who judges.** The checklist, the search and early stopping see the training images "
            "only, a "
            f"fifth of which ({judge} of {train + judge}, near-duplicates kept together) judge and "
            f"never train. The {outside} validation images are read once a run, after its last "
            "step, for the tables below: nothing was chosen on them. Default and tuned train on "
            f"the same {train} images for the same number of epochs.",
            "",
            f"**How sure.** +- is the standard deviation over the seeds. A share of {outside} "
            f"images has a standard error of up to {error:.1f} points of its own, which all rows "
            "share in part (the images are the same). Differences of one or two points mean "
            "nothing here.",
            "",
        ]
    )


def _section(measured: Measured) -> str:
    contest, name = measured.contest, measured.contest.name
    lines = [f"## {contest.title}", "", contest.note, ""]
    if measured.zero_shot is not None:
        lines += [f"Zero-shot, without any training: {measured.zero_shot:.1%}.", ""]
    lines += _table(
        ["", "validation accuracy", "training", "ensemble", "verdicts"],
        [
            [
                side,
                summary(result["accuracy"]),
                f"{statistics.fmean(result['train']):.1%}",
                f"{result['mean']:.1%}",
                _verdicts(result),
            ]
            for side, result in _sides(measured)
        ],
    )
    tuned, default = measured.tuned["accuracy"], measured.default["accuracy"]
    gain = 100 * (statistics.fmean(tuned) - statistics.fmean(default))
    better = sum(one > other for one, other in zip(tuned, default, strict=True))
    lines += [
        "",
        f"Tuned against default: {gain:+.1f} points, better for {better} of {len(tuned)} seeds. "
        f"Both for {contest.default.epochs} epochs, "
        f"batches of {contest.default.batch_size}. Default: {_words(contest.default)}. "
        f"Tuned: {_words(Recipe.from_yaml(measured.searched['best']))}.",
        "",
        f"![Loss, accuracy and rate of the tuned recipe, seed 0]({name}-curves.png)",
        "",
        "The checklist on the recipe that the search started from:",
        "",
        "```text",
        measured.checked["text"],
        "```",
        "",
        f"![The checklist, the learning rates tried and the curves]({name}-checklist.png)",
        "",
        f"{_search_line(measured.searched).capitalize()}. Which fields mattered:",
        "",
        f"![Importance of each field]({name}-importances.png)",
        "",
        "One technique at a time, added to the default:",
        "",
    ]
    lines += _table(
        ["", "validation accuracy", "points", "training", "verdicts"],
        [
            [label, accuracy, gain, f"{statistics.fmean(result['train']):.1%}", _verdicts(result)]
            for label, accuracy, gain, result in _ablation(measured)
        ],
    )
    if measured.missing:
        lines += ["", f"Not measured yet: {', '.join(measured.missing)}."]
    lines += ["", f"![Every technique's seeds]({name}-techniques.png)", ""]
    return "\n".join(lines)


def _words(recipe: Recipe) -> str:
    """What distinguishes a recipe, in a line."""
    parts: list[Any] = [recipe.method, recipe.optimizer, recipe.schedule, recipe.loss]
    parts += [recipe.preprocess, *recipe.augment]
    return "`" + " ".join(_short(part) for part in parts if part is not None) + "`"


def _short(part: Any) -> str:
    """A part with the fields that aren't at their default."""
    told = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            told.append(f"{field.name}={_short(value)}")
        elif isinstance(value, float):
            told.append(f"{field.name}={value:.3g}" if value != field.default else "")
        elif value != field.default:
            told.append(f"{field.name}={value!r}")
    return f"{type(part).__name__}({', '.join(filter(None, told))})"


def _verdicts(result: Result) -> str:
    words = result["verdicts"]
    return ", ".join(
        word if words.count(word) == len(words) else f"{word} x {words.count(word)}"
        for word in dict.fromkeys(words)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 2) + " --- |"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
