"""The tables of `finetune_proof`: cells to text, and into docs/finetuning.md."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np

BEGIN, END = "<!-- finetune-proof -->", "<!-- /finetune-proof -->"
AUTO = "auto"


@dataclass(frozen=True)
class Cell:
    """One method on one support set. right, zero: a 0 or 1 for each test image, tuned and
    zero-shot; error_*: calibration errors; kept_*: retention, None where nothing was asked.
    """

    task: str
    method: str
    shots: int
    seed: int
    right: str
    zero: str
    error_zero: float
    error_tuned: float
    kept_zero: float | None
    kept_tuned: float | None
    why: str

    @property
    def accuracy(self) -> float:
        return self.right.count("1") / len(self.right)

    @property
    def zero_accuracy(self) -> float:
        return self.zero.count("1") / len(self.zero)

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(".tmp")
        beside.write_text(json.dumps(asdict(self)), encoding="utf-8")
        beside.replace(file)

    @classmethod
    def read(cls, file: Path) -> Cell:
        return cls(**json.loads(file.read_text(encoding="utf-8")))


def tables(cells: Sequence[Cell]) -> str:
    """One Markdown table a task."""
    parts = []
    for task in dict.fromkeys(cell.task for cell in cells):
        own = [cell for cell in cells if cell.task == task]
        shots = sorted({cell.shots for cell in own})
        kept = own[0].kept_zero
        seeds = len({cell.seed for cell in own})
        lines = [
            f"**{task}**: zero-shot {own[0].zero_accuracy:.1%} on {len(own[0].zero)} test images"
            + f", calibration error {own[0].error_zero:.1%}"
            + ("" if kept is None else f"; other categories {kept:.1%} before")
            + f". Top-1 in percent, mean of {seeds} seeds ± their standard deviation; n where "
            "fewer were run.",
            "",
            "| method | "
            + " | ".join(map(_shots, shots))
            + " | calibration error | other categories, change |",
            "| --- |" + " ---: |" * (len(shots) + 2),
        ]
        for method in dict.fromkeys(cell.method for cell in own):
            row = [
                _mean([c for c in own if (c.method, c.shots) == (method, s)], seeds) for s in shots
            ]
            shown = f"**{method}** (the default)" if method == AUTO else method
            all_of_it = [c for c in own if c.method == method]
            row += [_calibration(all_of_it), _retention(all_of_it)]
            lines.append(f"| {shown} | " + " | ".join(row) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def passed(cells: Sequence[Cell], *, report: Callable[[str], object]) -> bool:
    """The default is never below zero-shot beyond noise, and rises with the shots.

    Noise: each test image's difference is averaged over the seeds; the 95 % interval of their mean
    (bootstrap over images) must not lie wholly below 0. Rise: the mean at the most shots is above
    that at the fewest, and no step down is larger than two points.
    """
    fine = True
    for task in dict.fromkeys(cell.task for cell in cells):
        own = [c for c in cells if c.task == task and c.method == AUTO]
        shots = sorted({cell.shots for cell in own})
        for number in shots:
            some = [c for c in own if c.shots == number]
            gain = np.mean([_bits(c.right) - _bits(c.zero) for c in some], axis=0)  # by image
            low, high = _interval(gain)
            ok = high >= 0
            fine &= ok
            report(
                f"{task}, {_shots(number)}: default - zero-shot {gain.mean():+.1%} "
                f"({low:+.1%} to {high:+.1%}){'' if ok else ': BELOW ZERO-SHOT'}"
            )
        means = [statistics.mean(c.accuracy for c in own if c.shots == s) for s in shots]
        rises = len(means) < 2 or means[-1] > means[0]
        steady = all(b >= a - 0.02 for a, b in itertools.pairwise(means))
        fine &= rises and steady
        words = "rises" if rises and steady else "DOES NOT RISE"
        shown = ", ".join(f"{mean:.1%}" for mean in means)
        report(f"{task}: the default {words} with the shots: {shown}")
    return fine


def write_page(page: Path, cells: Sequence[Cell], day: date) -> None:
    """Put the tables between the page's marks."""
    notes: list[str] = []
    passed(cells, report=lambda line: notes.append(f"- {line}"))
    body = "\n".join([BEGIN, f"Measured on {day.isoformat()}.", "", tables(cells), "", *notes, END])
    text = page.read_text(encoding="utf-8")
    start, end = text.index(BEGIN), text.index(END) + len(END)
    page.write_text(text[:start] + body + text[end:], encoding="utf-8")


def _shots(count: int) -> str:
    return f"{count} shot{'s' if count > 1 else ''}"


def _mean(cells: Sequence[Cell], seeds: int) -> str:
    if not cells:
        return ""
    values = [100 * cell.accuracy for cell in cells]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    fewer = f" (n = {len(values)})" if len(values) < seeds else ""
    return f"{statistics.mean(values):.1f}{spread}{fewer}"


def _calibration(cells: Sequence[Cell]) -> str:
    errors = [100 * cell.error_tuned for cell in cells]
    return f"{statistics.mean(errors):.1f} (worst {max(errors):.1f})"


def _retention(cells: Sequence[Cell]) -> str:
    changes = [
        100 * (c.kept_tuned - c.kept_zero)
        for c in cells
        if c.kept_tuned is not None and c.kept_zero is not None
    ]
    if not changes:
        return "not asked"
    if not any(changes):
        return "0"
    return f"{statistics.mean(changes):+.1f} (worst {min(changes):+.1f})"


def _bits(text: str) -> np.ndarray:
    return np.array([int(letter) for letter in text])


def _interval(values: np.ndarray) -> tuple[float, float]:
    dice = np.random.default_rng(0)
    means = [dice.choice(values, len(values)).mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
