"""A run's report: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.judging.metrics import in_what_ranking
from training.report.plots import checklist_figure, plot_health, plot_history, to_svg

if TYPE_CHECKING:
    from training.loop import Run
    from training.steps import ChecklistReport


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Cells as text, escaped."""
    top = "".join(f"<th>{escape(str(cell))}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


_WORST = 20  # classes shown


def comparison_sections(metrics: Mapping[str, Any]) -> list[str]:
    """HTML: the gate's verdict, the numbers side by side, and the classes that changed most."""
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
    verdict = "passed" if gate["passed"] else "refused"
    tests = [
        [test["name"], "passed" if test["passed"] else "failed", test["detail"]]
        for test in gate["tests"]
    ]
    old, new = (side["per_class"] for side in sides)
    changed = sorted(old, key=lambda name: new[name] - old[name])
    shown = changed if len(changed) <= _WORST else changed[: _WORST // 2] + changed[-_WORST // 2 :]
    return [
        f'<p class="{"pass" if gate["passed"] else "fail"}">Gate: {verdict}. Gain '
        f"{gain['mean']:+.1%}, 95 % interval {gain['lower']:+.1%} to {gain['upper']:+.1%}, over "
        f"{sides[0]['n']} held-out images{in_what_ranking(metrics)}.</p>",
        table(["", "zero-shot", "tuned"], rows),
        table(["test", "", ""], tests),
        f"<p>{escape('Classes, from the greatest loss to the greatest gain:')}</p>",
        table(
            ["class", "zero-shot", "tuned"],
            [[name, f"{old[name]:.0%}", f"{new[name]:.0%}"] for name in shown],
        ),
    ]


def _with_interval(side: Mapping[str, Any]) -> str:
    low, high = side["top1_interval"]
    return f"{side['top1']:.1%} ({low:.1%} to {high:.1%})"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
  color: #1c1c1c; background: #fff }
table { border-collapse: collapse; margin: 1em 0 } td, th { border: 1px solid #ccc;
  padding: .3em .7em; text-align: left; vertical-align: top }
th { background: #f4f4f4 } td.number { text-align: right; font-variant-numeric: tabular-nums }
.pass { background: #d5f0d5 } .warn { background: #fff1c4 } .fail { background: #f7c9c9 }
.skipped { background: #eee } .verdict { padding: .7em 1em; border-left: 6px solid #888;
  background: #f4f4f4 } pre { background: #f4f4f4; padding: 1em; overflow-x: auto }
svg { max-width: 100%; height: auto }
"""


def write_report(
    path: str | Path,
    *,
    run: Run,
    checklist: ChecklistReport | None = None,
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
    run: Run,
    *,
    checklist: ChecklistReport | None = None,
    title: str,
    metrics: Mapping[str, Any] | None = None,
) -> str:
    """The report as text: verdict, numbers, checklist, curves, health of the layers, recipe."""
    parts = [f"<h1>{escape(title)}</h1>", _verdict(run), "<h2>Result</h2>", _metrics(run)]
    if metrics:
        parts += ["<h2>Against zero-shot</h2>", *comparison_sections(metrics)]
    if checklist is not None:
        parts += ["<h2>Checklist</h2>", _checklist(checklist), to_svg(checklist_figure(checklist))]
    if run.history.loss:
        parts += ["<h2>Curves</h2>", to_svg(plot_history(run.history))]
        parts += ["<h2>Health of the layers</h2>", to_svg(plot_health(run.history))]
        parts.append(_health(run))
    parts += ["<h2>Recipe</h2>", f"<pre>{escape(run.recipe.to_yaml())}</pre>"]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"</body>\n</html>\n"
    )


def _verdict(run: Run) -> str:
    items = "".join(
        f"<p><b>{escape(f.verdict)}</b>: {escape(f.evidence)}.<br>{escape(f.advice)}</p>"
        for f in run.diagnosis.findings
    )
    stopped = f"<p>Ended early: {escape(run.history.stopped)}.</p>" if run.history.stopped else ""
    return f'<div class="verdict">{items}{stopped}</div>'


def _metrics(run: Run) -> str:
    rows = [[name, f"{value:.4f}"] for name, value in run.metrics.items()]
    rows.append(["epoch kept", f"{run.best_epoch + 1} of {run.recipe.epochs}"])
    rows.append(["classes", ", ".join(run.classes)])
    return table(["", "value"], rows)


def _checklist(report: ChecklistReport) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("step", "status", "measured", "expected", ""))
    rows = ""
    for step in report.steps:
        numbers = "".join(
            f'<td class="number">{"" if value is None else f"{value:.4g}"}</td>'
            for value in (step.measured, step.expected)
        )
        advice = f"<br><b>{escape(step.advice)}</b>" if step.advice else ""
        rows += (
            f'<tr><td>{escape(step.name)}</td><td class="{step.status}">{step.status}</td>{numbers}'
            f"<td>{escape(step.evidence)}{advice}</td></tr>"
        )
    changes = report.changes()
    suggestion = ", ".join(changes) if changes else "the recipe as it is"
    return f"<table><tr>{head}</tr>{rows}</table><p>Suggestion: {escape(suggestion)}.</p>"


def _health(run: Run) -> str:
    if not run.history.health:
        return ""
    measures = ("dead", "saturated", "mean", "weight", "gradient")
    rows = [
        [layer, *(f"{row[m]:.3g}" if m in row else "" for m in measures)]
        for layer, row in run.history.health[-1].items()
    ]
    return "<p>After the last epoch:</p>" + table(["layer", *measures], rows)
