"""timm's Mixup on any batch: soft targets, features as well as images, odd sizes too."""

from __future__ import annotations

from torch import Tensor

from training.extras import with_torchvision


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
