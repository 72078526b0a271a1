"""The six-step checklist."""

from training.steps.budget import seconds
from training.steps.report import ChecklistReport
from training.steps.step import Status, StepResult
from training.steps.walk import checklist

__all__ = ["ChecklistReport", "Status", "StepResult", "checklist", "seconds"]
