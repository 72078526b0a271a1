"""The six-step checklist."""

from training.steps.report import ChecklistReport
from training.steps.sequence import checklist
from training.steps.step import Status, StepResult, seconds

__all__ = ["ChecklistReport", "Status", "StepResult", "checklist", "seconds"]
