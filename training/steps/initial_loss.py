"""Step 1: is the first loss what it should be?

Expected: log C for a network that knows nothing (cross-entropy), the zero-shot loss for a head that
starts from the text vectors. Regularisers are off. The same look finds a double softmax, a frozen
head, a cut graph, leaks and more.

Source: the lecture's checklist, step 1.
"""

from __future__ import annotations

from training.diagnosis.wiring import wiring_findings
from training.errors import TrainingError
from training.loop import StopAfterSteps
from training.steps.step import Bench, Status, StepResult

NAME = "1 initial loss"


def initial_loss(bench: Bench) -> StepResult:
    """Train one step and read the facts."""
    recipe = bench.recipe.plain().replace(epochs=1)
    try:
        history = bench.train(recipe, callbacks=[StopAfterSteps(1)], without_dropout=True).history
    except TrainingError as exc:
        return StepResult(NAME, Status.FAIL, None, None, "the first step failed", exc.message)
    measured = float(history.facts["initial_loss"])
    expected = float(history.facts["expected_loss"])
    origin = "zero-shot" if bench.recipe.method.starts_at_zero_shot else "knowing nothing"
    evidence = f"the loss before the first step, against that of {origin}"
    findings = list(wiring_findings(history))
    if findings:
        said = "; ".join(f"{finding.verdict}: {finding.evidence}" for finding in findings)
        return StepResult(
            NAME, Status.FAIL, measured, expected, f"{evidence}; {said}", findings[0].advice
        )
    if not bench.recipe.method.trained:
        return StepResult(NAME, Status.PASS, measured, None, "a closed form: solved when built")
    ratio = measured / expected if expected else float("inf")
    if 0.8 <= ratio <= 1.2 or abs(measured - expected) < 0.05:
        return StepResult(NAME, Status.PASS, measured, expected, evidence)
    if measured < expected:
        return StepResult(
            NAME,
            Status.WARN,
            measured,
            expected,
            evidence,
            "The network knows more than it should: was it trained before, or does it see the "
            "labels?",
        )
    worse = measured > 1.5 * expected + 0.5
    return StepResult(
        NAME,
        Status.FAIL if worse else Status.WARN,
        measured,
        expected,
        evidence,
        "The first answers are confident and wrong: make the last layer's first weights smaller.",
    )
