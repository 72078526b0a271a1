"""What a run's history says: named verdicts with their evidence and advice."""

from training.diagnosis.curves import diagnose
from training.diagnosis.verdicts import ADVICE, Diagnosis, Finding, Verdict

__all__ = ["ADVICE", "Diagnosis", "Finding", "Verdict", "diagnose"]
