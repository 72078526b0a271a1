"""Learning-rate schedules."""

from training.schedules.constant import Constant
from training.schedules.cosine import Cosine
from training.schedules.inverse_sqrt import InverseSqrt
from training.schedules.linear import Linear
from training.schedules.schedule import Schedule
from training.schedules.step import Step

__all__ = ["Constant", "Cosine", "InverseSqrt", "Linear", "Schedule", "Step"]
