"""Optimisers and their parameter groups."""

from training.optimisers.adam import Adam
from training.optimisers.adamw import AdamW
from training.optimisers.groups import decays, parameter_groups
from training.optimisers.momentum import Momentum
from training.optimisers.optimiser import Optimiser
from training.optimisers.rmsprop import RMSprop
from training.optimisers.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Momentum",
    "Optimiser",
    "RMSprop",
    "decays",
    "parameter_groups",
]
