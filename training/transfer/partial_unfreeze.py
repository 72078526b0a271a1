"""Partial unfreeze: the head and the last k blocks learn, what comes before stays.

For more data: the last blocks are the most specific to what the network was pretrained on.

Source: Yosinski et al. 2014, arXiv:1411.1792; the lecture's transfer-learning slide, "medium
dataset".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from training.errors import RecipeError
from training.parts import check_positive, check_share, part
from training.transfer.stages import blocks_and_head


@part
@dataclass(frozen=True)
class PartialUnfreeze:
    """blocks: how many, from the end; lr_share: their share of the head's rate."""

    blocks: int = 1
    lr_share: float = 0.1

    def __post_init__(self) -> None:
        check_positive("blocks", self.blocks)
        check_positive("lr_share", self.lr_share)
        check_share("lr_share", self.lr_share)

    def apply(self, network: nn.Module) -> nn.Module:
        """See `Transfer.apply`.

        Raises: RecipeError where the network has fewer blocks.
        """
        groups, (_, head) = blocks_and_head(network)
        if self.blocks > len(groups):
            raise RecipeError(
                f"blocks={self.blocks}, but the network has {len(groups)} before its head",
                param="blocks",
            )
        network.requires_grad_(False)
        head.requires_grad_(True)
        for group in groups[-self.blocks :]:
            for _, module in group:
                module.requires_grad_(True)
        return network

    def lr_shares(self, network: nn.Module) -> Mapping[str, float]:
        """`lr_share` for all that is trainable but the head."""
        return backbone_shares(network, self.lr_share)

    def finish(self, network: nn.Module) -> nn.Module:
        """The network as it is."""
        return network


def backbone_shares(network: nn.Module, share: float) -> dict[str, float]:
    """`share` for each parameter outside of the head."""
    head = {id(p) for p in blocks_and_head(network)[1][1].parameters()}
    return {name: share for name, p in network.named_parameters() if id(p) not in head}
