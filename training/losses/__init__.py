"""Losses: for classification, and the two contrastive ones."""

from training.losses.absolute_error import AbsoluteError, absolute_error
from training.losses.binary_cross_entropy import BinaryCrossEntropy
from training.losses.cross_entropy import CrossEntropy
from training.losses.info_nce import info_nce
from training.losses.loss import Loss, soft_targets
from training.losses.pairwise_sigmoid import pairwise_sigmoid
from training.losses.squared_error import SquaredError, squared_error

__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Loss",
    "SquaredError",
    "absolute_error",
    "info_nce",
    "pairwise_sigmoid",
    "soft_targets",
    "squared_error",
]
