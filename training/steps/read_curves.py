"""Step 6: read the curves, by `training.diagnosis`: a pure function of the history.

Source: the lecture's checklist, step 6.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.diagnosis import Verdict
from training.loop import Run
from training.steps.step import Status, StepResult

NAME = "6 read the curves"


def read_curves(runs: Sequence[Run]) -> StepResult:
    """The verdict on the run in the middle (by validation accuracy)."""
    if not runs:
        return StepResult(NAME, Status.SKIPPED, None, None, "there is no finished run to read")
    run = middle(runs)
    side = "val" if "val/accuracy" in run.metrics else "train"
    diagnosis = run.diagnosis
    healthy = diagnosis.verdict is Verdict.HEALTHY
    evidence = "; ".join(f"{f.verdict}: {f.evidence}" for f in diagnosis.findings)
    return StepResult(
        NAME,
        Status.PASS if healthy else Status.WARN,
        run.metrics[f"{side}/accuracy"],
        None,
        evidence,
        "" if healthy else diagnosis.advice,
    )


def middle(runs: Sequence[Run]) -> Run:
    """The run with the median accuracy."""
    side = "val" if "val/accuracy" in runs[0].metrics else "train"
    ranked = sorted(runs, key=lambda run: run.metrics[f"{side}/accuracy"])
    return ranked[len(ranked) // 2]
