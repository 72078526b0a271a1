"""Normalisation over the batch, the sample or groups of channels.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    batch:  mean and var per channel over the batch in training (then var is biased), their running
            averages (var unbiased, momentum 0.1) in serving: one image's answer depends on its
            batch only while training
    layer:  over all channels and positions of each sample; the same in training and serving
    group:  over groups of channels of each sample; likewise

Sources: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1; Ba et al. 2016, arXiv:1607.06450; Wu &
He 2018, arXiv:1803.08494.
"""

from __future__ import annotations

from torch import nn

from training.errors import RecipeError

NORMS = ("none", "batch", "layer", "group")


def norm2d(name: str, channels: int, *, groups: int = 8) -> nn.Module:
    """A normalisation for [N, channels, H, W] by its name in `NORMS`.

    Raises: RecipeError for an unknown name, or groups that don't divide the channels.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "layer":
        return nn.GroupNorm(1, channels)  # one group: all channels and positions of a sample
    if name == "group":
        if channels % groups:
            raise RecipeError(f"{groups} groups don't divide {channels} channels", param="groups")
        return nn.GroupNorm(groups, channels)
    raise RecipeError(f"unknown norm {name!r}; known: {', '.join(NORMS)}", param="norm")


def norm1d(name: str, channels: int) -> nn.Module:
    """A normalisation for [N, channels]: "none", "batch" or "layer".

    Raises: RecipeError for another name.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm1d(channels)
    if name == "layer":
        return nn.LayerNorm(channels)
    raise RecipeError(f"unknown norm {name!r} for vectors: none, batch or layer", param="norm")
