"""What a transfer rule is: which of a pretrained network's weights may change, how fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Transfer(Protocol):
    """A way of reusing a pretrained network."""

    def apply(self, network: nn.Module) -> nn.Module:
        """Freeze, wrap or leave; returns the network to train (the same object, or a wrapper)."""
        ...

    def lr_shares(self, network: nn.Module) -> Mapping[str, float]:
        """Parameters (by name in the applied network) that learn at a share of the rate."""
        ...

    def finish(self, network: nn.Module) -> nn.Module:
        """After training: the network to serve, without wrappers."""
        ...
