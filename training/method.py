"""What a method is: it builds the network that a recipe trains, or has already trained it."""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

from torch import Tensor, nn

from training.data.dataset import Dataset, ZeroShot
from training.errors import RecipeError


@runtime_checkable
class Method(Protocol):
    """A way of learning from a Dataset.

    trained: whether the loop trains what `build` returns; False for closed forms, which are done
    then starts_at_zero_shot: whether the network answers as zero-shot does before the first step
    """

    @property
    def trained(self) -> bool:
        """Whether gradient steps follow."""
        ...

    @property
    def starts_at_zero_shot(self) -> bool:
        """Whether the untrained network is the zero-shot classifier."""
        ...

    def build(self, data: Dataset) -> nn.Module:
        """A network from a batch of inputs ([B, D] or [B, 3, H, W]) to logits [B, C].

        May draw from the global generators, which `fit` has seeded.
        """
        ...

    def plain(self) -> Self:
        """The same without regularisation."""
        ...


@runtime_checkable
class Regularised(Protocol):
    """A network that brings a penalty of its own, such as an anchor."""

    def own_penalty(self) -> Tensor:
        """A scalar to add to the loss."""
        ...


def need_zero_shot(data: Dataset, name: str) -> ZeroShot:
    """The data set's text vectors.

    Raises: RecipeError where it has none.
    """
    if data.zero_shot is None or data.has_images:
        raise RecipeError(
            f"{name} works on an encoder's features: make them with encode(encoder, folder)",
            param="method",
        )
    return data.zero_shot
