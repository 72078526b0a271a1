"""Layers that a network can be made of."""

from training.layers.activations import ACTIVATIONS, ActivationFacts, activation
from training.layers.dropconnect import DropConnect
from training.layers.fractional_pool import FractionalMaxPool
from training.layers.maxout import Maxout
from training.layers.norms import NORMS, norm1d, norm2d
from training.layers.residual import Residual, zero_last_layer

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "ActivationFacts",
    "DropConnect",
    "FractionalMaxPool",
    "Maxout",
    "Residual",
    "activation",
    "norm1d",
    "norm2d",
    "zero_last_layer",
]
