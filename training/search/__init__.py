"""Search over recipes."""

from training.search.space import Choice, LogUniform, Range, Space, Uniform, Whole
from training.search.study import Trial
from training.search.tuning import Tuning, tune

__all__ = ["Choice", "LogUniform", "Range", "Space", "Trial", "Tuning", "Uniform", "Whole", "tune"]
