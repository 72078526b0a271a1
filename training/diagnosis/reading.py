"""From a history to its verdict: a pure function, so a file is enough for one years later."""

from __future__ import annotations

from training.diagnosis.curves import curve_findings
from training.diagnosis.verdicts import Diagnosis, Finding, Verdict
from training.diagnosis.wiring import wiring_findings
from training.history import History


def diagnose(history: History) -> Diagnosis:
    """Every finding, the weightiest first; HEALTHY where there is none."""
    findings = [*wiring_findings(history), *curve_findings(history)]
    if not findings:
        epochs = len(history.epochs)
        findings = [Finding(Verdict.HEALTHY, f"nothing stands out over {epochs} epochs")]
    return Diagnosis(tuple(findings))
