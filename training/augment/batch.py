"""What an augmentation is: a change of one training batch, never of validation."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from training.errors import RecipeError


@runtime_checkable
class Augment(Protocol):
    """A random change of a batch; draws from the global generators, which checkpoints carry."""

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """inputs [B, 3, H, W] or [B, D], targets [B, C] with rows that sum to 1 -> the same,
        changed.

        May write into both, which belong to the batch alone.
        """
        ...


def need_images(inputs: Tensor, name: str) -> None:
    """Raise RecipeError unless the batch holds images."""
    if inputs.ndim != 4:
        raise RecipeError(
            f"{name} works on images, not on features; drop it, or use encode(..., views=4), "
            "which augments before the encoder",
            param="augment",
        )
