"""The six-step checklist."""

from training.steps.report import ChecklistReport
from training.steps.step import Status, StepResult, seconds
from training.steps.sequence import checklist

__all__ = ["ChecklistReport", "Status", "StepResult", "checklist", "seconds"]
