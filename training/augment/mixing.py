"""Augmentations that mix the images of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from training.errors import RecipeError, with_torchvision
from training.parts import check_positive, part


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


def mix_pairs(
    inputs: Tensor, targets: Tensor, *, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0
) -> tuple[Tensor, Tensor]:
    """inputs [B, ...], targets [B, C] -> the same, mixed in pairs; the odd one out stays."""
    even = len(inputs) - len(inputs) % 2
    if even == 0:
        return inputs, targets
    mixer = with_torchvision("timm.data").Mixup(
        mixup_alpha=mixup_alpha,
        cutmix_alpha=cutmix_alpha,
        label_smoothing=0.0,  # the loss does that
        num_classes=targets.shape[1],
        multi_label=True,  # takes soft targets, so that two mixes may follow each other
    )
    mixed, mixed_targets = mixer(inputs[:even].clone(), targets[:even])
    inputs, targets = inputs.clone(), targets.clone()
    inputs[:even], targets[:even] = mixed, mixed_targets.to(targets.dtype)
    return inputs, targets


@part
@dataclass(frozen=True)
class Mixup:
    """l ~ Beta(alpha, alpha): 0.2 is mild, 1.0 uniform.

        x' = l x_i + (1 - l) x_j,   y' = l y_i + (1 - l) y_j,   l ~ Beta(alpha, alpha)

    Works on images and on features. One l a batch; partners are the batch in reverse (timm's
    Mixup). Of an odd batch the last sample stays as it is.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412, eq. 1.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Augment.apply`."""
        return mix_pairs(inputs, targets, mixup_alpha=self.alpha)


@part
@dataclass(frozen=True)
class CutMix:
    """l0 ~ Beta(alpha, alpha).

        x' = M x_i + (1 - M) x_j,   y' = l y_i + (1 - l) y_j,   l = the share of M

    The rectangle is clipped at the border before l is taken. Its edges are sqrt(1 - l0) of the
    image's, l0 ~ Beta(alpha, alpha) (timm's Mixup).

    Source: Yun et al. 2019, "CutMix", arXiv:1905.04899, eq. 1 and 2.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)

    def apply(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Augment.apply`."""
        need_images(inputs, "CutMix")
        return mix_pairs(inputs, targets, cutmix_alpha=self.alpha)
