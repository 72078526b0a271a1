"""The report's part that tells tuned from zero-shot, from what stands in metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from training.metrics import in_what_ranking
from training.report.table import table

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
