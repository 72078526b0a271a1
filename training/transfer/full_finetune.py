"""Full fine-tuning: everything learns, the backbone at a tenth of the head's rate or less.

For thousands of images. For CLIP's towers that means 1e-5..3e-5 (1e-1..1e-4 is for heads), with
warmup, cosine decay and gradients clipped to norm 1, and afterwards interpolation with the weights
from before (`weight_average.py`).

Source: the lecture's transfer-learning slide, "large dataset"; Wortsman et al. 2022,
arXiv:2109.01903, appendix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from training.errors import RecipeError
from training.parts import part
from training.transfer.partial_unfreeze import backbone_shares


@part
@dataclass(frozen=True)
class FullFineTune:
    """lr_share: the backbone's share of the head's rate, at most 0.1."""

    lr_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.lr_share <= 0.1:
            raise RecipeError(
                f"a pretrained backbone wants at most a tenth of the rate, got {self.lr_share}",
                param="lr_share",
            )

    def apply(self, network: nn.Module) -> nn.Module:
        """See `Transfer.apply`."""
        return network.requires_grad_(True)

    def lr_shares(self, network: nn.Module) -> Mapping[str, float]:
        """`lr_share` for all but the head."""
        return backbone_shares(network, self.lr_share)

    def finish(self, network: nn.Module) -> nn.Module:
        """The network as it is."""
        return network
