"""Networks to train from scratch, or brought along."""

from training.networks.cnn import SmallCNN, SmallCNNNetwork
from training.networks.given import GivenModel
from training.networks.mlp import MLP, MLPNetwork

__all__ = ["MLP", "GivenModel", "MLPNetwork", "SmallCNN", "SmallCNNNetwork"]
