"""A network that the caller brings along."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from training.data.dataset import Dataset
from training.errors import RecipeError
from training.parts import part


@part
@dataclass(frozen=True)
class GivenModel:
    """Any torch network from a batch to logits, handed over as `fit(..., model=network)`.

    zero_shot: whether it answers as zero-shot does before the first step.
    """

    zero_shot: bool = False

    trained = True

    @property
    def starts_at_zero_shot(self) -> bool:
        """As the caller says."""
        return self.zero_shot

    def build(self, data: Dataset) -> nn.Module:
        """Can't: the network isn't part of the recipe."""
        raise RecipeError("GivenModel needs the network: pass model=...", param="model")

    def plain(self) -> GivenModel:
        """Itself; dropout inside the network is switched off by the checklist."""
        return self
