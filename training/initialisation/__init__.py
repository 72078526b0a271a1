"""First weights, and what they do to the signal."""

from training.initialisation.he import He
from training.initialisation.scheme import Initialisation, fan_in, initialise
from training.initialisation.small_random import SmallRandom
from training.initialisation.variance import (
    LayerVariance,
    VarianceReport,
    is_activation,
    variance_report,
)
from training.initialisation.xavier import Xavier
from training.initialisation.zero import Zero

__all__ = [
    "He",
    "Initialisation",
    "LayerVariance",
    "SmallRandom",
    "VarianceReport",
    "Xavier",
    "Zero",
    "fan_in",
    "initialise",
    "is_activation",
    "variance_report",
]
