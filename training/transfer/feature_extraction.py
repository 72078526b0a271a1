"""Feature extraction: the backbone frozen, only the head learns.

For little data near the pretraining's. Frozen BatchNorm layers keep their averages. (For CLIP, use
a head of `training.heads` on encoded features instead: the same, without running the tower again.)

Source: Donahue et al. 2014 (DeCAF); the lecture's transfer-learning slide, "small dataset".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from training.parts import part
from training.transfer.stages import blocks_and_head


@part
@dataclass(frozen=True)
class FeatureExtraction:
    """Train the last part of the network alone."""

    def apply(self, network: nn.Module) -> nn.Module:
        """See `Transfer.apply`."""
        network.requires_grad_(False)
        blocks_and_head(network)[1][1].requires_grad_(True)
        return network

    def lr_shares(self, network: nn.Module) -> Mapping[str, float]:
        """None: the head learns at the full rate."""
        return {}

    def finish(self, network: nn.Module) -> nn.Module:
        """The network as it is."""
        return network
