"""The six-step checklist."""

from training.checklist.report import ChecklistReport
from training.checklist.step import Status, StepResult, seconds
from training.checklist.walk import checklist

__all__ = ["ChecklistReport", "Status", "StepResult", "checklist", "seconds"]
