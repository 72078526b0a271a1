"""Preprocessing and network as one module: saved, evaluated and served together."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from training.data.dataset import Dataset
from training.errors import RecipeError
from training.heads import FeatureHead
from training.networks import Regularised
from training.recipe import Recipe


class Pipeline(nn.Module):
    """network(preprocess(x)). preprocess: fitted on the training split, or the identity."""

    def __init__(self, network: nn.Module, preprocess: nn.Module | None = None) -> None:
        super().__init__()
        self.preprocess = nn.Identity() if preprocess is None else preprocess
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [B, ...] as they are in the data -> logits [B, C]."""
        logits: Tensor = self.network(self.preprocess(x))
        return logits

    def own_penalty(self) -> Tensor | None:
        """The network's own penalty, if it brings one."""
        return self.network.own_penalty() if isinstance(self.network, Regularised) else None


def build_pipeline(recipe: Recipe, data: Dataset, model: nn.Module | None = None) -> Pipeline:
    """The untrained network with its preprocessing fitted.

    model: used instead of what the method builds (a copy of it, so that it stays as it is).

    Raises: RecipeError where method and preprocessing don't go together.
    """
    network = recipe.method.build(data) if model is None else copy.deepcopy(model)
    preprocess = None
    if recipe.preprocess is not None:
        if isinstance(network, FeatureHead):
            raise RecipeError(
                "heads compare features with text vectors, so the features must stay as they are: "
                "leave preprocess out",
                param="preprocess",
            )
        preprocess = recipe.preprocess.fit(data.train.first_views())
    if recipe.transfer is not None:
        network = recipe.transfer.apply(network)
    return Pipeline(network, preprocess)
