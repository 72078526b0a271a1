"""Maxout: the largest of several linear pieces.

    h_i(x) = max over k = 1..K of (x W_ik + b_ik)

It neither saturates nor dies, for K times the weights. With K = 2, one piece at zero and the
other the identity, it is ReLU.

Source: Goodfellow et al. 2013, "Maxout Networks", arXiv:1302.4389, section 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from training.errors import RecipeError


class Maxout(nn.Module):
    """[..., in_features] -> [..., out_features], each the maximum of `pieces` linear maps."""

    def __init__(self, in_features: int, out_features: int, *, pieces: int = 2) -> None:
        super().__init__()
        if pieces < 2:
            raise RecipeError(f"maxout needs at least 2 pieces, got {pieces}", param="pieces")
        self.pieces = pieces
        self.out_features = out_features
        self.linear = nn.Linear(in_features, out_features * pieces)

    def forward(self, x: Tensor) -> Tensor:
        """The maximum over the pieces."""
        pieces = self.linear(x).unflatten(-1, (self.out_features, self.pieces))  # (..., H, K)
        largest: Tensor = pieces.amax(dim=-1)
        return largest
