"""A run's report: one HTML file that needs nothing else, from the template report.html.j2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jinja2

from training.diagnosis import Diagnosis
from training.history import History
from training.recipe import Recipe
from training.report.plots import (
    DrawnChecklist,
    checklist_figure,
    plot_health,
    plot_history,
    to_svg,
)

_WORST = 20  # classes shown
_MEASURES = ["dead", "saturated", "mean", "weight", "gradient"]


class ReportedRun(Protocol):
    """What a report needs of `training.Run`."""

    @property
    def recipe(self) -> Recipe:
        """How it was trained."""
        ...

    @property
    def history(self) -> History:
        """Its course."""
        ...

    @property
    def diagnosis(self) -> Diagnosis:
        """What the course says."""
        ...

    @property
    def metrics(self) -> dict[str, float]:
        """Of the kept weights."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        ...

    @property
    def best_epoch(self) -> int:
        """Whose weights are kept, from 0."""
        ...


class ReportedChecklist(DrawnChecklist, Protocol):
    """What a report needs of `training.ChecklistReport`."""

    def changes(self) -> list[str]:
        """What the suggestion changes, in words."""
        ...


def write_report(
    path: str | Path,
    *,
    run: ReportedRun,
    checklist: ReportedChecklist | None = None,
    title: str = "Training report",
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of a run, with its checklist if there was one. Returns the path.

    metrics: an adapter's, as in metrics.json: zero-shot beside tuned, and the gate

    Raises: MissingExtraError without matplotlib.
    """
    target = Path(path)
    target.write_text(
        report_html(run, checklist=checklist, title=title, metrics=metrics), encoding="utf-8"
    )
    return target


def report_html(
    run: ReportedRun,
    *,
    checklist: ReportedChecklist | None = None,
    title: str,
    metrics: Mapping[str, Any] | None = None,
) -> str:
    """The report as text: verdict, numbers, checklist, curves, health of the layers, recipe."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    drawn = bool(run.history.loss)
    return environment.get_template("report.html.j2").render(
        title=title,
        run=run,
        results=_results(run),
        comparison=_comparison(metrics) if metrics and "gate" in metrics else None,
        board=(metrics or {}).get("leaderboard"),
        candidates=_candidates((metrics or {}).get("leaderboard")),
        checklist=checklist,
        checklist_picture="" if checklist is None else to_svg(checklist_figure(checklist)),
        curves=to_svg(plot_history(run.history)) if drawn else "",
        health_picture=to_svg(plot_health(run.history)) if drawn else "",
        measures=_MEASURES,
        health=_health(run.history),
        recipe=run.recipe.to_yaml(),
    )


def in_what_ranking(metrics: Mapping[str, Any]) -> str:
    """Among how many other categories the classes had to be found, as the end of a sentence.

    metrics: as in metrics.json
    """
    # adapters written before call them "rivals"
    others = metrics["other_categories"] if "other_categories" in metrics else metrics["rivals"]
    return f", in one ranking with {others:,} other categories" if others else ""


def on_what_images(metrics: Mapping[str, Any]) -> str:
    """Which images a comparison stands on, in words. metrics: as in metrics.json"""
    n = metrics["tuned"]["n"]
    if metrics.get("measured") == "out of fold":
        return f"{n} training images, each answered by what the other folds taught"
    return f"{n} held-out images"


def _results(run: ReportedRun) -> list[list[str]]:
    return [
        *([name, f"{value:.4f}"] for name, value in run.metrics.items()),
        ["epoch kept", f"{run.best_epoch + 1} of {run.recipe.epochs}"],
        ["classes", ", ".join(run.classes)],
    ]


def _comparison(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The gate's verdict, the numbers side by side, and the classes that changed most."""
    gate, gain, kept = metrics["gate"], metrics["gain"], metrics["retention"]
    sides = [metrics["zero_shot"], metrics["tuned"]]
    rows: list[list[str]] = [
        ["top-1", *(_with_interval(side) for side in sides)],
        ["top-5", *(f"{side['top5']:.1%}" for side in sides)],
        ["calibration error", *(f"{side['calibration_error']:.3f}" for side in sides)],
    ]
    if kept["zero_shot"] is not None:
        what = f"other categories ({kept['kind']}, {kept['n']} images)"
        rows.append([what, *(f"{kept[side]:.1%}" for side in ("zero_shot", "tuned"))])
    old, new = (side["per_class"] for side in sides)
    changed = sorted(old, key=lambda name: new[name] - old[name])
    shown = changed if len(changed) <= _WORST else changed[: _WORST // 2] + changed[-_WORST // 2 :]
    return {
        "passed": gate["passed"],
        "verdict": f"Gate: {'passed' if gate['passed'] else 'refused'}. Gain {gain['mean']:+.1%}, "
        f"90 % interval {gain['lower']:+.1%} to {gain['upper']:+.1%}, over "
        f"{on_what_images(metrics)}{in_what_ranking(metrics)}.",
        "sides": rows,
        "tests": [
            [test["name"], "passed" if test["passed"] else "failed", test["detail"]]
            for test in gate["tests"]
        ],
        "classes": [[name, f"{old[name]:.0%}", f"{new[name]:.0%}"] for name in shown],
    }


def _candidates(board: Mapping[str, Any] | None) -> list[list[str]]:
    """One row a candidate of a leaderboard as in metrics.json, the best first."""
    if board is None or not board["folds"]:
        return []
    return [
        [
            f"{row['name']} (chosen)" if row["name"] == board["winner"] else row["name"],
            f"{row['accuracy']:.1%} ({row['interval'][0]:.1%} to {row['interval'][1]:.1%})",
            f"{row['log_likelihood']:.3f}",
            f"{row['behind']:.3f} ± {row['standard_error']:.3f}",
            row["settings"],
        ]
        for row in board["candidates"]
    ]


def _with_interval(side: Mapping[str, Any]) -> str:
    low, high = side["top1_interval"]
    return f"{side['top1']:.1%} ({low:.1%} to {high:.1%})"


def _health(history: History) -> list[list[str]]:
    """One row a layer, after the last epoch."""
    last = history.health[-1] if history.health else {}
    return [
        [layer, *(f"{row[measure]:.3g}" if measure in row else "" for measure in _MEASURES)]
        for layer, row in last.items()
    ]
